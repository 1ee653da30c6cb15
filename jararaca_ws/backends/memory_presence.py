"""Who is in which room, in one process: the memory backend's part of presence."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import NamedTuple

from jararaca_ws.backends.presence import PresenceChange, PresenceEntry, PresenceMember
from jararaca_ws.errors import PresenceLost

__all__ = ["MemoryPresence", "MemoryPresenceStore"]


class _Kept(NamedTuple):
    change: PresenceChange
    at_ms: int


class MemoryPresence:
    """What Redis is to the other backend: the state that the stores of a process share.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By room, and in it by instance (and which of its lives) and connection.
        self.rooms: dict[str, dict[tuple[tuple[str, int], str], _Kept]] = {}
        # Until when each life of an instance lasts.
        self.alive: dict[tuple[str, int], int] = {}

    def store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> MemoryPresenceStore:
        return MemoryPresenceStore(self, instance_id, ttl_ms, grace_ms)

    def now_ms(self) -> int:
        return round(self._clock() * 1000)

    def is_alive(self, life: tuple[str, int]) -> bool:
        return self.alive.get(life, 0) > self.now_ms()


class MemoryPresenceStore:
    """One instance's `PresenceStore`."""

    def __init__(self, shared: MemoryPresence, instance_id: str, ttl_ms: int, grace_ms: int) -> None:
        self._shared = shared
        self._ttl_ms = ttl_ms
        self._grace_ms = grace_ms
        self._life = (instance_id, 0)
        self._lives = count(1)

    async def register(self) -> None:
        self._shared.alive.pop(self._life, None)
        self._life = (self._life[0], next(self._lives))
        self._shared.alive[self._life] = self._shared.now_ms() + self._ttl_ms

    async def beat(self, rooms: Collection[str]) -> None:
        self._check()
        self._shared.alive[self._life] = self._shared.now_ms() + self._ttl_ms

    async def write(self, changes: Sequence[PresenceChange]) -> None:
        self._check()
        for change in changes:
            members = self._shared.rooms.setdefault(change.room, {})
            key = (self._life, change.connection_id)
            if change.kind == "gone":
                members.pop(key, None)
            else:
                members[key] = _Kept(change, self._shared.now_ms())
            if not members:
                del self._shared.rooms[change.room]

    async def read(self, rooms: Sequence[str]) -> list[list[PresenceMember]]:
        self._check()
        return [self._members(room) for room in rooms]

    async def retire(self) -> None:
        self._shared.alive[self._life] = self._shared.now_ms() + self._grace_ms

    def _check(self) -> None:
        if not self._shared.is_alive(self._life):
            raise PresenceLost("it does not know this instance any more")

    def _members(self, room: str) -> list[PresenceMember]:
        members = self._shared.rooms.get(room, {})
        for key in [key for key in members if not self._shared.is_alive(key[0])]:
            del members[key]
        if not members:
            self._shared.rooms.pop(room, None)
        found = [self._member(life[0], kept) for (life, _), kept in members.items()]
        return [member for member in found if member.left_ms is None or member.left_ms < self._grace_ms]

    def _member(self, instance_id: str, kept: _Kept) -> PresenceMember:
        change, at_ms = kept
        entry = PresenceEntry(change.connection_id, instance_id, change.user_id, change.metadata)
        left_ms = self._shared.now_ms() - at_ms if change.kind == "left" else None
        return PresenceMember(entry, at_ms, left_ms)
