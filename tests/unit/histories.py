"""Instances that share the histories of one store, over links that a test can lose, delay and cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from jararaca_ws.backends.base import (
    BroadcastFunc,
    Entry,
    EntryFunc,
    GapFunc,
    Publication,
    Replay,
    SendFunc,
    StreamPosition,
)
from jararaca_ws.backends.memory_history import MemoryHistories, SentIds
from jararaca_ws.delivery import recoverable
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.wire.protocol import SUBPROTOCOL
from jararaca_ws.wire.retained import RECOVER_SUBPROTOCOL
from tests.unit.played import Socket, serving, turns, until, until_closed


class Kept(WebSocketMessage):
    MESSAGE_ID = "histories.kept"
    DELIVERY = recoverable(size=1000, ttl=timedelta(minutes=5))

    n: int
    padding: str = ""


class Passing(WebSocketMessage):
    MESSAGE_ID = "histories.passing"

    n: int


class Store:
    """The server: histories, and the links of all instances."""

    def __init__(self) -> None:
        self.histories = MemoryHistories()
        self.ids = SentIds(300)
        self.links: list[Link] = []

    def publish(self, publication: Publication) -> None:
        if publication.retention is None:
            for link in self.links:
                link.carry(None, None, publication)
            return
        for room in publication.rooms:
            if self.ids.is_first(room, publication.id):
                entry = self.histories.append(room, publication, publication.retention)
                for link in self.links:
                    link.carry(room, entry, publication)

    def wipe(self) -> None:
        """Restart empty."""
        self.histories = MemoryHistories()


class Link:
    """The backend of one instance.

    Attributes:
        lost: whether what is carried is lost, as while the connection to the server is.
        away: whether histories cannot be read.
        open: cleared, answers of reads (taken before) are held back.
        arrives: cleared, what is carried is on its way.
        reads: the questions that were asked.
        subscriptions: of this instance.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lost = self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.arrives = asyncio.Event()
        self.arrives.set()
        self.reads: list[tuple[str, StreamPosition | None]] = []
        self.position_reads: list[list[str]] = []
        self.subscriptions: set[str] = set()
        self._carried: asyncio.Queue[tuple[str | None, Entry | None, Publication]] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._send: SendFunc
        self._entry: EntryFunc
        self._gap: GapFunc

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._send = send

    def on_entry(self, deliver: EntryFunc) -> None:
        self._entry = deliver

    def on_gap(self, report: GapFunc) -> None:
        self._gap = report

    async def start(self) -> None:
        self.store.links.append(self)
        self._reader = asyncio.create_task(self._read())

    async def shutdown(self) -> None:
        self.store.links.remove(self)
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def carry(self, room: str | None, entry: Entry | None, publication: Publication) -> None:
        if not self.lost:
            self._carried.put_nowait((room, entry, publication))

    async def _read(self) -> None:
        while True:
            room, entry, publication = await self._carried.get()
            await self.arrives.wait()
            if room is None or entry is None:
                rooms = [room for room in publication.rooms if room in self.subscriptions]
                if rooms:
                    await self._send(rooms, publication.payload)
            elif room in self.subscriptions:
                await self._entry(room, entry, publication.rooms)

    def restore(self) -> None:
        """The connection to the server is back."""
        self.lost = False
        self._gap(tuple(self.subscriptions), broadcasts=True)

    @property
    def is_idle(self) -> bool:
        return self._carried.empty()

    async def broadcast(self, message: bytes) -> None:
        raise NotImplementedError

    async def send(self, rooms: list[str], message: bytes) -> None:
        raise NotImplementedError

    async def send_many(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self.store.publish(publication)

    async def subscribe(self, rooms: Collection[str]) -> None:
        self.subscriptions.update(rooms)
        await asyncio.sleep(0)

    def unsubscribe(self, rooms: Collection[str]) -> None:
        self.subscriptions.difference_update(rooms)

    async def history(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        self.reads.append((room, since))
        await self._reachable()
        replay = self.store.histories.read(room, since, limit)
        await self.open.wait()
        return replay

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        self.position_reads.append(list(rooms))
        await self._reachable()
        positions = [self.store.histories.position(room) for room in rooms]
        await self.open.wait()
        return positions

    async def _reachable(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise BackendUnavailable("the test has taken it away")


class Instance:
    """One instance of the fleet, and the sockets that it serves."""

    def __init__(self, manager: WebSocketConnectionManager, link: Link, stack: AsyncExitStack) -> None:
        self.manager = manager
        self.link = link
        self._stack = stack

    async def connect(
        self, *rooms: str, v1: bool = True, recover: dict[str, StreamPosition] | str | None = None
    ) -> Socket:
        """A socket that is in the rooms; with ``recover`` one that has sent its positions (or that frame)."""
        offered = [SUBPROTOCOL] if v1 else []
        if recover is not None:
            offered.append(RECOVER_SUBPROTOCOL)
        socket = await self._stack.enter_async_context(
            serving(until_closed, manager=self.manager, settings=self.manager.settings, subprotocols=offered)
        )
        if recover is not None:
            socket.server.text(recover if isinstance(recover, str) else recover_frame(recover))
        await until(lambda: socket.connection in self.manager.connections)
        if rooms:
            await self.manager.join(rooms, socket.connection)
        return socket


def recover_frame(positions: dict[str, StreamPosition]) -> str:
    rooms = {room: {"epoch": epoch, "offset": offset} for room, (epoch, offset) in positions.items()}
    return json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": rooms}})


@asynccontextmanager
async def fleet(
    count: int = 1, settings: WebSocketSettings | None = None, store: Store | None = None
) -> AsyncIterator[list[Instance]]:
    store = store or Store()
    before = asyncio.all_tasks() - {asyncio.current_task()}
    async with AsyncExitStack() as stack:
        instances = []
        for _ in range(count):
            link = Link(store)
            manager = await stack.enter_async_context(WebSocketConnectionManager(link, settings=settings))
            instances.append(Instance(manager, link, stack))
        yield instances
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, left


def frames(socket: Socket) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in socket.server.frames]


def kept(socket: Socket, room: str | None = None) -> list[int]:
    """The numbers of the kept messages that came, in order."""
    return [
        frame["message"]["n"]
        for frame in frames(socket)
        if frame["MESSAGE_ID"] == Kept.MESSAGE_ID and room in (None, frame["room"])
    ]


def control(socket: Socket, *names: str) -> list[dict[str, Any]]:
    """What came of these control messages (all, where none is named): the message, with its name."""
    return [
        {"name": frame["MESSAGE_ID"].removeprefix("jararaca."), **frame["message"]}
        for frame in frames(socket)
        if frame["MESSAGE_ID"].startswith("jararaca.")
        and (not names or frame["MESSAGE_ID"].removeprefix("jararaca.") in names)
    ]


def position(socket: Socket, room: str) -> StreamPosition:
    """Where a client that follows the documentation believes to be in a room."""
    at = StreamPosition("", 0)
    for frame in frames(socket):
        place = frame if "offset" in frame else frame["message"]
        moves = "offset" in frame or frame["MESSAGE_ID"] == "jararaca.position"
        if frame["MESSAGE_ID"] == "jararaca.recovered" and not place["recovered"]:
            moves = True
        if moves and place["room"] == room:
            at = StreamPosition(place["epoch"], place["offset"])
    return at


def _is_settled(instance: Instance) -> bool:
    manager = instance.manager
    streams = [manager.delivery.streams.get(room) for room in manager.rooms]
    return (
        instance.link.is_idle
        and not any(stream is not None and stream.is_healing for stream in streams)
        and not manager._recoveries._tasks
        and not any(len(connection.outbound) for connection in manager.connections)
    )


async def settled(*instances: Instance) -> None:
    """Until nothing is carried any more, no history is being read, and all is written."""
    for _ in range(3):
        await until(lambda: all(map(_is_settled, instances)))
        await turns()
