"""What the checks of a backend contract are made with: a backend that is started, and all that it hands over."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from jararaca_ws.backends.base import (
    Entry,
    GapReportingBackend,
    HistoryBackend,
    StartableBackend,
    SubscribingBackend,
    WebSocketConnectionBackend,
)

__all__ = [
    "AWKWARD_ROOMS",
    "TIMEOUT_S",
    "Check",
    "MakeBackend",
    "Recorder",
    "across_instances",
    "on_one_instance",
    "started",
]

MakeBackend = Callable[[], WebSocketConnectionBackend]
Check = Callable[..., Awaitable[None]]

TIMEOUT_S = 10.0
AWKWARD_ROOMS = [
    "a,b",
    "*",
    "?",
    "[x]",
    "{tag}",
    "{}",
    "}{",
    "}",
    "%7B",
    "a b",
    " a",
    "../x",
    "__keyspace@0__:x",
    "a:b",
    "%2C",
    "größe",
    "日本",
    # Rooms of our own: a backend carries them as any other.
    "\x01user:a,b",
    "\x01presence:a:b",
]


class Recorder:
    """One backend, started, and everything that it handed over."""

    def __init__(self, backend: WebSocketConnectionBackend) -> None:
        self.backend = backend
        self.sent: list[tuple[tuple[str, ...], bytes]] = []
        self.broadcasts: list[bytes] = []
        self.entries: list[tuple[str, Entry, tuple[str, ...]]] = []
        self.gaps: list[tuple[list[str], bool]] = []
        self.shutdown_event = asyncio.Event()
        self._changed = asyncio.Event()

    async def on_send(self, rooms: list[str], message: bytes) -> None:
        self.sent.append((tuple(rooms), message))
        self._changed.set()

    async def on_entry(self, room: str, entry: Entry, rooms: Sequence[str]) -> None:
        self.entries.append((room, entry, tuple(rooms)))
        self._changed.set()

    async def on_broadcast(self, message: bytes) -> None:
        self.broadcasts.append(message)
        self._changed.set()

    def on_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        self.gaps.append((sorted(rooms), broadcasts))
        self._changed.set()

    async def start(self) -> None:
        self.backend.configure(self.on_broadcast, self.on_send, self.shutdown_event)
        if isinstance(self.backend, GapReportingBackend):
            self.backend.on_gap(self.on_gap)
        if isinstance(self.backend, HistoryBackend):
            self.backend.on_entry(self.on_entry)
        if isinstance(self.backend, StartableBackend):
            await self.backend.start()

    async def stop(self) -> None:
        self.shutdown_event.set()
        await self.backend.shutdown()

    async def subscribe(self, *rooms: str) -> None:
        if isinstance(self.backend, SubscribingBackend):
            await self.backend.subscribe(rooms)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was handed over makes the condition true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def settled(self) -> None:
        """Wait until everything sent before has been handed over: a broadcast of our own has come round."""
        mark = f'"settled {len(self.broadcasts)} {id(self)}"'.encode()
        await self.backend.broadcast(mark)
        await self.until(lambda: mark in self.broadcasts)

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.sent]

    def kept(self, room: str) -> list[tuple[int, bytes]]:
        """Offset and payload of what came with a place in the room's history."""
        return [(entry.position.offset, entry.payload) for through, entry, _ in self.entries if through == room]


@asynccontextmanager
async def started(make: MakeBackend, count: int = 1) -> AsyncIterator[list[Recorder]]:
    async with AsyncExitStack() as stack:
        recorders = [Recorder(make()) for _ in range(count)]
        for recorder in recorders:
            await recorder.start()
            stack.push_async_callback(recorder.stop)
        yield recorders


def across_instances(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if distributed:
            await check(make)

    return guarded


def on_one_instance(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        await check(make)

    return guarded
