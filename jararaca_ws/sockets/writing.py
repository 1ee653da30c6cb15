"""Writing frames: through the server's transport at the end of each tick, or else through ASGI, by a task.

The two ways deliver the same frames in the same order. The first is for servers that offer `DirectFrames` in the scope
(`jararaca_ws.server`): all frames that were queued for a connection while the loop turned once leave in one write, and
no connection needs a task for it. The second is for every other ASGI server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from starlette.types import Send

from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.flushing import TURN_BYTES
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.sockets.time_limit import TimeLimit
from jararaca_ws.sockets.waiting import Flag
from jararaca_ws.wire.frames import Frame, wire_form

__all__ = ["DIRECT_FRAMES", "DirectFrames", "DirectWriter", "TaskWriter", "Writer"]

_log = logging.getLogger("jararaca_ws")

DIRECT_FRAMES = "jararaca_ws.wire.frames"
"""The ASGI scope extension under which a server offers `DirectFrames`."""


class DirectFrames(Protocol):
    """What a server offers that lets us write complete frames to the transport of one socket. Nothing waits."""

    @property
    def accepts_frames(self) -> bool:
        """False while the transport holds more than its high-water mark, before the handshake, and after the end."""
        ...

    #: The deflate window of frames that may be shared between connections; None where nothing is compressed.
    window_bits: int | None

    #: Writes complete frames; more than the transport takes at once stays in its buffer.
    write_frames: Callable[[bytes], None]

    def close_frame(self, code: int, reason: str) -> None:
        """Write a close frame and begin the closing handshake. Nothing may be written after it."""
        ...

    def abort(self) -> None:
        """Drop the transport, and what its buffer holds."""
        ...

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call back each time at which the transport becomes writable again."""
        ...

    def on_unwritable(self, callback: Callable[[], None]) -> None:
        """Call back, at once, each time at which `accepts_frames` has become False."""
        ...

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back when the transport has gone. It may come before or after the disconnect message."""
        ...

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call back when the server stops and it is this socket's turn to close."""
        ...


class Writer(Protocol):
    """Writes the outbound queue of one connection, and closes its socket when the connection is closing."""

    def wake(self) -> None:
        """Something was queued, or the state has changed. Synchronous and cheap: called once for each frame."""
        ...

    def start(self) -> asyncio.Task[None] | None:
        """Write until the connection is CLOSED; in a task where it takes one, which the caller then owns."""
        ...


class DirectWriter:
    """Writes at the end of the tick, without a task."""

    __slots__ = ("_abort", "_closed", "_connection", "_frames", "_stall", "_woken")

    def __init__(self, connection: WebSocketConnection, frames: DirectFrames) -> None:
        self._connection = connection
        self._frames = frames
        self._woken = False
        # None while the transport takes what it is given.
        self._stall: asyncio.TimerHandle | None = None
        # None unless a close frame waits in a transport that is full.
        self._abort: asyncio.TimerHandle | None = None
        self._closed = False
        frames.on_writable(self._resumed)
        frames.on_unwritable(self._paused)
        frames.on_drain(connection.begin_shutdown)
        frames.on_lost(self._lost)
        connection.on_failed = self.failed

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._connection.flusher.add(self)

    def start(self) -> None:
        """No task: the flusher does the writing."""
        self._connection.form = wire_form(self._frames.window_bits, False)
        self._connection.on_closed(self._unstall)

    def flush(self) -> None:
        """Write what fits into one turn; what does not is written in the next one."""
        self._woken = False
        connection = self._connection
        frames = self._frames
        if connection.accepted and frames.accepts_frames:
            outbound = connection.outbound
            connection.tell_evicted()
            batch = outbound.take(TURN_BYTES)
            if batch:
                connection.flusher.writes += 1
                frames.write_frames(connection.flusher.join(batch, connection.form))
            connection.tell_evicted()
            if outbound.size:
                self.wake()
                return
        if connection.state is ConnectionState.OPEN and frames.accepts_frames:
            # Nothing waits: from here on the flusher writes by itself what is delivered.
            connection.direct = frames.write_frames
        else:
            self._flush_otherwise()

    def _flush_otherwise(self) -> None:
        connection = self._connection
        if not connection.accepted or connection.state is ConnectionState.CLOSED:
            return
        if connection.state is ConnectionState.CLOSING and not connection.outbound.size:
            self._close()
        elif not self._frames.accepts_frames and self._stall is None:
            timeout_s = connection.settings.write_timeout.total_seconds()
            self._stall = asyncio.get_running_loop().call_later(timeout_s, self._stalled)

    def _paused(self) -> None:
        self._connection.direct = None
        self._flush_otherwise()

    def _resumed(self) -> None:
        self._unstall()
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None
        self.wake()

    def _lost(self) -> None:
        self._connection.direct = None
        # The reading task hears of it, with the close code, in a moment; unless it waits for a handler that is busy.
        asyncio.get_running_loop().call_later(1.0, self._connection.finish, 1006, "")

    def _stalled(self) -> None:
        self._stall = None
        if self._connection.state is ConnectionState.OPEN:
            self._connection.slow("it did not take what was sent within the write timeout")
        else:
            self._frames.abort()

    def _unstall(self, _: WebSocketConnection | None = None) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unstall()
        connection = self._connection
        stuck = not self._frames.accepts_frames
        self._frames.close_frame(connection.close_code or 1000, connection.close_reason)
        if stuck:
            # The close frame waits behind what the peer does not read: it gets its chance, and then the end. Only a
            # transport that drains cancels this: the connection is CLOSED at once, and the transport is what has to go.
            timeout_s = connection.settings.close_timeout.total_seconds()
            self._abort = asyncio.get_running_loop().call_later(timeout_s, self._frames.abort)

    def failed(self, error: Exception) -> None:
        """Writing has raised: drop this socket."""
        _log.error("connection %s could not be written to", self._connection.id, exc_info=error)
        self._frames.abort()
        self._connection.finish(1006, "")


class TaskWriter:
    """Writes through the ASGI ``send``, which waits while the transport is full."""

    __slots__ = ("_awake", "_connection", "_limit", "_send", "_writing")

    def __init__(self, connection: WebSocketConnection, send: Send) -> None:
        self._connection = connection
        self._send = send
        self._awake = Flag()
        self._limit = TimeLimit()
        # Whether somebody is in the middle of a send; whoever it is wakes the task afterwards.
        self._writing = False
        connection.write_now = self.write_now

    def wake(self) -> None:
        self._awake.set()
        if self._connection.overflowed and self._limit.running:
            # It is stuck in a send that may never end.
            self._limit.end_in(self._connection.settings.close_timeout.total_seconds())

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._run(), name=f"websocket-writer-{self._connection.id}")

    async def write_now(self, frame: Frame) -> bool:
        """Write a frame in the calling task, which saves a switch to ours; False where others are before it.

        Returns, too, when it could not be written: then the connection is closing.
        """
        connection = self._connection
        connection.flusher.settle()
        if self._writing or connection.state is not ConnectionState.OPEN or connection.outbound.size:
            return False
        try:
            await self._write_frames(frame)
        except Exception as error:
            self._lost(error)
        return True

    async def _run(self) -> None:
        connection = self._connection
        try:
            while connection.state is not ConnectionState.CLOSED:
                await self._awake.wait()
                self._awake.clear()
                if connection.accepted and not self._writing:  # else whoever writes wakes us
                    await self._write()
        except Exception as error:
            self._lost(error)
        finally:
            self._limit.stop()
        connection.finish(1006, "")

    def _lost(self, error: Exception) -> None:
        # Servers differ in what they raise when the peer has gone: OSError, RuntimeError, their own.
        _log.debug("connection %s cannot be written to: %r", self._connection.id, error)
        self._connection.finish(1006, "")

    async def _write(self) -> None:
        connection = self._connection
        if connection.outbound.size:
            connection.tell_evicted()
            await self._write_frames(connection.outbound.pop())
        if connection.state is ConnectionState.CLOSING and not connection.outbound.size:
            with self._limit(connection.settings.close_timeout.total_seconds()):
                code, reason = connection.close_code, connection.close_reason
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
            connection.finish(1006, "")

    async def _write_frames(self, frame: Frame | None) -> None:
        """Write a frame, and then what is queued by now. Not more: the deadline is for these bytes."""
        connection = self._connection
        outbound = connection.outbound
        left = len(outbound)
        self._writing = True
        try:
            with self._limit(connection.settings.write_timeout.total_seconds()):
                packs = connection.form.is_packed
                while frame is not None:
                    if packs:
                        frame = frame.packed
                    if frame.binary:
                        await self._send({"type": "websocket.send", "bytes": frame.data})
                    else:
                        await self._send({"type": "websocket.send", "text": frame.text})
                    frame = outbound.pop() if left else None
                    left -= 1
        except TimeoutError:
            connection.slow("it did not take what was sent within the write timeout")
        finally:
            self._writing = False
            if outbound.size or connection.state is not ConnectionState.OPEN:
                self._awake.set()
