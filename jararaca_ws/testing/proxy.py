"""A TCP proxy that breaks on demand: between an application and its broker, or between a client and its server."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

__all__ = ["Direction", "FaultProxy"]

Direction = Literal["to_server", "to_client"]

_BUFFER_BYTES = 64 * 1024
"""Of each socket in the kernel, and of what is held here for one direction of a connection."""


@dataclass(slots=True)
class _Faults:
    """What is wrong with one direction."""

    blackholed: bool = False
    lossy: bool = False
    delay_s: float = 0.0
    # None: as fast as it goes.
    bytes_per_s: float | None = None


class FaultProxy:
    """Passes TCP connections on to one server, and does to them what a network does.

    It listens on a port of 127.0.0.1 from ``async with`` on; leaving resets what is left of its connections. Faults
    are switched while it runs, and take effect at the next turn of the event loop. `blackhole`, `delay`, `trickle` and
    `drop_replies` last until `heal`, and add up; `cut` and `reset` happen once.

    Memory is bounded: a direction that does not pass on is not read from either, so its sender soon can send no more.

    Args:
        port: of the server.
        host: of the server.

    Attributes:
        accepted: connections so far.
        lost_replies: connections that `drop_replies` has ended.
    """

    host = "127.0.0.1"

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.accepted = 0
        self.lost_replies = 0
        self._server = (host, port)
        self._faults: dict[Direction, _Faults] = {"to_server": _Faults(), "to_client": _Faults()}
        self._healed = asyncio.Event()
        self._carried: dict[asyncio.Task[None], tuple[socket.socket, socket.socket]] = {}
        # None while it does not run.
        self._listening: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port to connect to.

        Raises:
            RuntimeError: it does not run.
        """
        if self._listening is None:
            raise RuntimeError("this proxy does not run: use it within `async with`")
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are carried now, those that wait in a black hole included."""
        return len(self._carried)

    # --- faults -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """End every connection on both sides, in the orderly way (FIN). What was held is lost. New ones pass."""
        for task in self._carried:
            task.cancel()

    def reset(self) -> None:
        """Break every connection on both sides, as a crashed peer does (RST). New ones pass."""
        for task, sockets in self._carried.items():
            _break(*sockets)
            task.cancel()

    def blackhole(self, direction: Direction | None = None) -> None:
        """Pass nothing on, and say nothing of it: neither data nor the end of a connection. None: both directions.

        A new connection is accepted and hears nothing. What is held flows on after `heal`, as it does when a network
        comes back before anybody has given up.
        """
        for faults in self._of(direction):
            faults.blackholed = True

    def delay(self, seconds: float, direction: Direction | None = None) -> None:
        """Hold all that comes for so long, and what comes meanwhile together with the next: twice that at most."""
        for faults in self._of(direction):
            faults.delay_s = seconds

    def trickle(self, bytes_per_s: float, direction: Direction | None = None) -> None:
        """Pass on no more than this."""
        if bytes_per_s <= 0:
            raise ValueError(f"{bytes_per_s} bytes a second: for nothing at all there is blackhole()")
        for faults in self._of(direction):
            faults.bytes_per_s = bytes_per_s

    def drop_replies(self) -> None:
        """Let what clients say through, and lose the answer: at the server's next word the connection is cut.

        So the server has done what it was asked to, and the client cannot know.
        """
        self._faults["to_client"].lossy = True

    def heal(self) -> None:
        """End every fault; what is held goes on at once."""
        for direction in self._faults:
            self._faults[direction] = _Faults()
        self._healed.set()
        self._healed = asyncio.Event()

    def _of(self, direction: Direction | None) -> list[_Faults]:
        return list(self._faults.values()) if direction is None else [self._faults[direction]]

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._listening = _nonblocking()
        self._listening.bind((self.host, 0))
        self._listening.listen(1024)
        self._task = asyncio.create_task(self._accept(self._listening), name="jararaca_ws fault proxy")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, listening = self._task, self._listening
        self._task = self._listening = None
        if task is None or listening is None:
            return
        self.reset()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if (caller := asyncio.current_task()) is not None and caller.cancelling():
                raise
        finally:
            listening.close()

    async def _accept(self, listening: socket.socket) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await asyncio.get_running_loop().sock_accept(listening)
                self.accepted += 1
                server = _nonblocking()
                task = group.create_task(self._carry(client, server))
                self._carried[task] = (client, server)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Not within the task: one that is cancelled before its first step would leave its sockets open.
        for one in self._carried.pop(task):
            with suppress(OSError):
                while one.recv(_BUFFER_BYTES):
                    pass  # closing with something unread would be a RST
            one.close()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _carry(self, client: socket.socket, server: socket.socket) -> None:
        try:
            await self._passable("to_server")
            await asyncio.get_running_loop().sock_connect(server, self._server)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on("to_server", client, server))
                group.create_task(self._pass_on("to_client", server, client))
        except* OSError:  # one side was reset, or the server is not there: the other side learns it in the same way
            _break(client, server)
        except* _ReplyLost:
            self.lost_replies += 1

    async def _pass_on(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._passable(direction)
            data = await loop.sock_recv(source, _BUFFER_BYTES)
            # From here on it counts what is wrong now, not what was when the wait for data began.
            if data and self._faults[direction].lossy:
                raise _ReplyLost
            if delay_s := self._faults[direction].delay_s:
                await self._hold(delay_s)
            await self._passable(direction)
            if not data:
                sink.shutdown(socket.SHUT_WR)  # a half-close stays one
                return
            await self._write(direction, sink, data)

    async def _write(self, direction: Direction, sink: socket.socket, data: bytes) -> None:
        while data:
            rate = self._faults[direction].bytes_per_s
            size = len(data) if rate is None else max(1, int(rate / 20))
            piece, data = data[:size], data[size:]
            await asyncio.get_running_loop().sock_sendall(sink, piece)
            if rate is not None:
                await self._hold(len(piece) / rate)
            await self._passable(direction)

    async def _passable(self, direction: Direction) -> None:
        while self._faults[direction].blackholed:
            await self._healed.wait()

    async def _hold(self, seconds: float) -> None:
        """Wait so long, or until all is healed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._healed.wait()


class _ReplyLost(Exception):
    pass


def _nonblocking() -> socket.socket:
    """A socket with small buffers: a large one would hide for long that nobody reads."""
    one = socket.socket()
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # what is accepted inherits it
    return one


def _break(*sockets: socket.socket) -> None:
    """Let their close be a RST: it lingers for no time at all."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
