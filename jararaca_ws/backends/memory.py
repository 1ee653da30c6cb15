"""The embedded default: one process, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jararaca_ws.backends.base import BroadcastFunc, EntryFunc, Publication, Replay, SendFunc, StreamPosition
from jararaca_ws.backends.limits import LimitStore
from jararaca_ws.backends.memory_history import MemoryHistories, SentIds
from jararaca_ws.backends.memory_limits import MemoryLimits
from jararaca_ws.backends.memory_presence import MemoryPresence
from jararaca_ws.backends.memory_values import MemoryValues
from jararaca_ws.backends.presence import PresenceStore
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.limits.rates import Buckets, Rate

__all__ = ["MemoryWebSocketConnectionBackend"]

_KEYED_WINDOW_S = 300.0
_WINDOW_S = 10.0


class MemoryWebSocketConnectionBackend:
    """Carries frames within this process only: for development, tests, and applications of one instance.

    In order, and nothing is ever missed; nothing reaches another process. Histories of rooms are kept until it is shut
    down.
    """

    def __init__(self) -> None:
        # None before configure and after shutdown.
        self._broadcast: BroadcastFunc | None = None
        self._send: SendFunc | None = None
        # None where nobody asks for what is kept.
        self._entry: EntryFunc | None = None
        self._presence = MemoryPresence()
        self._buckets = Buckets()
        self._limits = MemoryLimits()
        self._forget()

    def _forget(self) -> None:
        self._histories = MemoryHistories()
        # Of senders with ids of their own, and of those that try again at once.
        self._keyed = SentIds(_KEYED_WINDOW_S)
        self._tried = SentIds(_WINDOW_S)
        self._values = MemoryValues()

    def presence_store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> PresenceStore:
        return self._presence.store(instance_id, ttl_ms=ttl_ms, grace_ms=grace_ms)

    def limit_store(self, instance_id: str, *, ttl_ms: int) -> LimitStore:
        return self._limits.store(instance_id, ttl_ms=ttl_ms)

    async def subscribers(self, room: str) -> int:
        return 1

    async def take_token(self, key: str, rate: Rate) -> float:
        return self._buckets.take(key, rate)

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._broadcast = broadcast
        self._send = send

    def on_entry(self, deliver: EntryFunc) -> None:
        self._entry = deliver

    async def broadcast(self, message: bytes) -> None:
        if self._broadcast is None:
            raise BackendUnavailable("it is not running")
        await self._broadcast(message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        if self._send is None:
            raise BackendUnavailable("it is not running")
        await self._send(rooms, message)

    async def send_many(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            if self._send is None:
                raise BackendUnavailable("it is not running")
            rooms = self._first_rooms(publication)
            if publication.retention is not None:
                for room in rooms:
                    entry = self._histories.append(room, publication, publication.retention)
                    if self._entry is not None:
                        await self._entry(room, entry, publication.rooms)
            elif rooms:
                await self.send(rooms, publication.payload)

    def _first_rooms(self, publication: Publication) -> list[str]:
        if publication.retention is None and not publication.is_keyed:
            return publication.rooms
        ids = self._keyed if publication.is_keyed else self._tried
        return [room for room in publication.rooms if ids.is_first(room, publication.id)]

    async def history(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        return self._histories.read(room, since, limit)

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        return [self._histories.position(room) for room in rooms]

    async def keep(self, key: str, value: bytes, ttl_ms: int) -> None:
        self._values.put(key, value, ttl_ms)

    async def kept(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._values.get(key) for key in keys]

    async def take(self, key: str) -> bytes | None:
        return self._values.take(key)

    async def shutdown(self) -> None:
        self._broadcast = self._send = self._entry = None
        self._forget()
