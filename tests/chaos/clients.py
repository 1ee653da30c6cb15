"""Who listens in a chaos run: clients that come back, on any instance, and note all that they get."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from enum import Enum
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from jararaca_ws.backends.base import StreamPosition
from tests.chaos.verdict import Log, Noted
from tests.faults.history import Message, Promise

__all__ = ["Client", "Understands"]

_PATIENCE_S = 3.0
"""For a handshake, a pong, a close."""

_COME_BACK = {1012, 1013, 4001}
"""Drain, shutdown, a backend that is away. Any other code of the server is wrong, 4010 too: Redis forgets nothing."""


class Understands(Enum):
    NOTHING = "plain"
    CONTROL = "v1"
    RECOVERY = "recovering"

    @property
    def subprotocols(self) -> list[Subprotocol] | None:
        offered = {self.NOTHING: [], self.CONTROL: ["jararaca.v1"], self.RECOVERY: ["jararaca.v1", "jararaca.recover"]}
        return [Subprotocol(name) for name in offered[self]] or None


class Client:
    """Listens to rooms, and comes back when its connection is lost.

    One that recovers is the same receiver of what is kept all the time; of all else each connection is one.

    Attributes:
        rooms: that it joins with each connection.
        got: all messages that it received.
    """

    def __init__(self, name: str, understands: Understands, rooms: list[str], log: Log) -> None:
        self.name = f"{understands.value}-{name}"
        self.rooms = rooms
        self.understands = understands
        self.got: dict[Promise, set[Message]] = {promise: set() for promise in Promise}
        self.closes: Counter[str] = Counter()
        self._log = log
        self._connections = 0
        self._connected = False
        # What it has of each room.
        self._positions: dict[str, StreamPosition] = {}

    @property
    def ready(self) -> bool:
        """Whether it has a connection; one that recovers, also a place in each room to come back to."""
        recovers = self.understands is Understands.RECOVERY
        return self._connected and not (recovers and len(self._positions) < len(self.rooms))

    async def run(self, ports: dict[str, int], rng: random.Random, stop: asyncio.Event) -> None:
        """Listen until told to stop."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._once(rng.choice(list(ports.values())), stopping)
                await asyncio.sleep(rng.uniform(0.05, 0.5))
        finally:
            stopping.cancel()

    async def _once(self, port: int, stopping: asyncio.Task[bool]) -> None:
        query = "&".join(f"room={room}" for room in self.rooms)
        try:
            async with connect(
                f"ws://127.0.0.1:{port}/listen?{query}",
                subprotocols=self.understands.subprotocols,
                open_timeout=_PATIENCE_S,
                ping_interval=_PATIENCE_S / 2,
                ping_timeout=_PATIENCE_S,
                close_timeout=1,
                compression=None,
                proxy=None,
            ) as connection:
                await self._listen(connection, stopping)
        except InvalidStatus as refused:
            self._note_refusal(refused.response.status_code)
        except (OSError, InvalidHandshake, TimeoutError, EOFError):
            self.closes["not connected"] += 1

    async def _listen(self, connection: ClientConnection, stopping: asyncio.Task[bool]) -> None:
        self._connections += 1
        self._connected = True
        if self.understands is not Understands.RECOVERY:
            self._positions.clear()
        self._join()
        reading = asyncio.create_task(self._read(connection))
        try:
            if self.understands is Understands.RECOVERY:
                await connection.send(json.dumps(self._positions_frame()))
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except ConnectionClosed:
            pass
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            self._connected = False
            self._leave()
        if not reading.cancelled() and (error := reading.exception()) is not None:
            self._note_close(error)

    async def _read(self, connection: ClientConnection) -> None:
        async for text in connection:
            parsed = json.loads(text)
            for envelope in parsed if isinstance(parsed, list) else [parsed]:
                self._take(envelope)
        raise ConnectionClosed(connection.protocol.close_rcvd, connection.protocol.close_sent)

    # --- what it notes ------------------------------------------------------------------------------------------------

    def _receiver(self, promise: Promise) -> str:
        if promise is Promise.RECOVERABLE and self.understands is Understands.RECOVERY:
            return self.name
        return f"{self.name}/{self._connections}"

    def _join(self) -> None:
        told = Noted.JOINED_UNTOLD if self.understands is Understands.NOTHING else Noted.JOINED
        for room in self.rooms:
            self._log.note(told, Promise.EPHEMERAL, self._receiver(Promise.EPHEMERAL), room)
            if self.understands is not Understands.RECOVERY:
                self._log.note(Noted.JOINED, Promise.RECOVERABLE, self._receiver(Promise.RECOVERABLE), room)

    def _leave(self) -> None:
        for promise in Promise:
            if self._receiver(promise) != self.name:
                self._log.note(Noted.GONE, promise, self._receiver(promise))

    def _note_refusal(self, status: int) -> None:
        self.closes[f"HTTP {status}"] += 1
        if status != 503:
            self._log.wrong(f"{self.name} was refused with {status}")

    def _note_close(self, error: BaseException) -> None:
        if not isinstance(error, ConnectionClosed):
            self._log.wrong(f"{self.name} cannot read what it got: {error!r}")
        elif error.rcvd is None or error.rcvd_then_sent is False:
            self.closes["lost"] += 1
        else:
            self.closes[str(error.rcvd.code)] += 1
            if error.rcvd.code not in _COME_BACK:
                self._log.wrong(f"{self.name} was closed with {error.rcvd.code} {error.rcvd.reason}")

    # --- what it gets -------------------------------------------------------------------------------------------------

    def _positions_frame(self) -> dict[str, Any]:
        rooms = {room: position._asdict() for room, position in self._positions.items()}
        return {"MESSAGE_ID": "jararaca.recover", "message": {"rooms": rooms}}

    def _take(self, envelope: dict[str, Any]) -> None:
        kind, content = envelope["MESSAGE_ID"], envelope["message"]
        if kind == "chaos.kept":
            position = StreamPosition(envelope["epoch"], envelope["offset"])
            self._has(envelope["room"], position)
            self._received(Promise.RECOVERABLE, envelope["room"], content, position)
        elif kind == "chaos.passing":
            self._received(Promise.EPHEMERAL, content["room"], content, None)
        elif self.understands is Understands.NOTHING:
            self._log.wrong(f"{self.name} does not understand {kind}")
        elif kind == "jararaca.gap":
            if content["room"] is not None:
                receiver = self._receiver(Promise.EPHEMERAL)
                self._log.note(Noted.GAP, Promise.EPHEMERAL, receiver, content["room"])
        elif kind == "jararaca.position":
            self._passed(content["room"], StreamPosition(content["epoch"], content["offset"]))
        elif kind == "jararaca.recovered":
            self._recovered(**content)
        elif kind != "jararaca.shutdown":
            self._log.wrong(f"{self.name} got {kind}")

    def _received(self, promise: Promise, room: str, content: dict[str, Any], position: StreamPosition | None) -> None:
        message = Message(content["room"], content["sender"], content["sequence"])
        self.got[promise].add(message)
        self._log.note(Noted.RECEIVED, promise, self._receiver(promise), room, message, position)

    def _passed(self, room: str, position: StreamPosition) -> None:
        """It is told its place. One further than it knew: the message there came through another room."""
        known = self._positions.get(room)
        self._has(room, position)
        if known is not None and position.offset == known.offset + 1:
            receiver = self._receiver(Promise.RECOVERABLE)
            self._log.note(Noted.PASSED, Promise.RECOVERABLE, receiver, room, None, position)

    def _has(self, room: str, position: StreamPosition) -> None:
        """It has everything of the room up to here; and the first time, from here on it can be recovered."""
        if room not in self._positions and self.understands is Understands.RECOVERY:
            self._log.note(Noted.JOINED, Promise.RECOVERABLE, self.name, room)
        self._positions[room] = position

    def _recovered(self, room: str, recovered: bool, epoch: str, offset: int) -> None:
        if recovered:
            self._log.note(Noted.RECOVERED, Promise.RECOVERABLE, self.name, room)
            if offset == self._positions[room].offset:  # nothing follows: the same place in a newer epoch
                self._positions[room] = StreamPosition(epoch, offset)
        else:
            self._log.note(Noted.NOT_RECOVERED, Promise.RECOVERABLE, self.name, room)
            self._positions[room] = StreamPosition(epoch, offset)
