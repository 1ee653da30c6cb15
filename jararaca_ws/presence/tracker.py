"""Presence: this instance's members written to the store that all share, and its watchers told what they read there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from jararaca_ws.backends.base import WebSocketConnectionBackend
from jararaca_ws.backends.presence import PresenceBackend, PresenceEntry, PresenceMember, PresenceStore
from jararaca_ws.commands import Command, Moved
from jararaca_ws.errors import BackendUnavailable, ConfigurationError, PresenceLost
from jararaca_ws.presence.members import TrackedMembers
from jararaca_ws.presence.settings import PresenceSettings
from jararaca_ws.presence.watchers import Watchers
from jararaca_ws.rooms import RoomRegistry, check_room, is_internal, presence_room, watched_room
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.supervision import Supervised

__all__ = ["PresenceTracker", "presence_store"]

_log = logging.getLogger("jararaca_ws")

_SWEPT = 4
"""Unwatched rooms that are read with each sign of life, in turn, so that what dead instances left there goes."""

_PARTING_S = 2.0


def presence_store(backend: WebSocketConnectionBackend, instance_id: str, settings: PresenceSettings) -> PresenceStore:
    """The backend's store for this instance.

    Raises:
        ConfigurationError: the backend keeps no presence.
    """
    if not isinstance(backend, PresenceBackend):
        raise ConfigurationError(
            f"a {type(backend).__name__} keeps no presence", "it needs the method of PresenceBackend"
        )
    ttl_ms, grace_ms = round(settings.life_s * 1000), round(settings.grace.total_seconds() * 1000)
    return backend.presence_store(instance_id, ttl_ms=max(1, ttl_ms), grace_ms=grace_ms)


class PresenceTracker:
    """One instance's part in presence.

    States are kept and compared, never events: whoever missed one reads the state again, and is right again. What has
    changed here is written at once. Instances with watchers are nudged through a room of ours, and read the state,
    at most once in a window; a nudge that is lost heals with the refresh after a third of the TTL.

    Args:
        store: who is in which room, for all instances.
        registry: who is in which room on this one.
        join, leave: take a watcher into a room of ours, and out of it.
        command: carries the nudges.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: PresenceStore,
        settings: PresenceSettings,
        registry: RoomRegistry[WebSocketConnection],
        *,
        join: Callable[[list[str], WebSocketConnection], Awaitable[None]],
        leave: Callable[[list[str], WebSocketConnection], None],
        command: Callable[[Iterable[str], Command], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings
        self._registry = registry
        self._join = join
        self._leave = leave
        self._command = command
        self._clock = clock
        self._beat_s = settings.life_s / 3
        self._members = TrackedMembers(registry, settings.grace.total_seconds(), clock)
        self._watchers = Watchers(registry, settings, clock)
        self._beat_at = self._refresh_at = self._settled_at = 0.0
        self._swept: list[str] = []
        # Held while the store is spoken to, so that what is read comes after what is written.
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._task = Supervised("jararaca_ws presence", self._work)

    @property
    def healthy(self) -> bool:
        """Whether the store was spoken to and nothing has gone wrong since."""
        return self._task.healthy

    async def start(self) -> None:
        """Register this instance.

        Raises:
            BackendUnavailable: it could not be.
        """
        await self._store.register()
        self._beat_at = self._refresh_at = self._clock()
        self._task.start()

    async def stop(self) -> None:
        """Say who has left with the instance, if that can be said quickly; leave no task behind."""
        await self._task.stop()
        try:
            async with asyncio.timeout(_PARTING_S), self._lock:
                await self._flush()
                await self._store.retire()
        except (BackendUnavailable, TimeoutError):
            _log.warning("presence could not be told that this instance ends; its members are shown until the TTL")
        self._watchers.clear()

    # --- what the manager tells: synchronous --------------------------------------------------------------------------

    def touch(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        """The connection has joined or left these rooms, or is another in them than before."""
        for room in rooms:
            watched = watched_room(room)
            if watched is not None:
                self._watchers.drop_unwatched(watched)
            elif not is_internal(room):
                self._members.touch(room, connection)
                self._wake.set()

    def set_metadata(self, metadata: dict[str, Any], connection: WebSocketConnection) -> None:
        """See `WebSocketConnection.set_metadata`."""
        connection.metadata = self._settings.check(metadata)
        self.touch(self._registry.rooms_of(connection), connection)

    def nudged(self, rooms: Iterable[str]) -> None:
        """Something has changed for those in these rooms of ours, or may have without our notice."""
        for room in rooms:
            watched = watched_room(room)
            if watched is not None:
                self._watchers.read_soon(watched)
                self._wake.set()

    async def watch(self, room: str, connection: WebSocketConnection) -> None:
        """See `WebSocketConnection.watch_presence`."""
        watchers = presence_room(check_room(room))
        if not connection.may_be_told:
            return
        await self._join([watchers], connection)
        if connection not in self._registry.members(watchers):
            return  # it was told to watch no more meanwhile
        if self._watchers.add(room, connection):
            self._wake.set()

    def unwatch(self, room: str, connection: WebSocketConnection) -> None:
        """See `WebSocketConnection.unwatch_presence`."""
        self._leave([presence_room(check_room(room))], connection)

    # --- what a user asks ---------------------------------------------------------------------------------------------

    async def entries(self, room: str) -> list[PresenceEntry]:
        """Who is in the room now, on all instances.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        async with self._lock:
            try:
                members = await self._read_one(room)
            except PresenceLost:
                await self._begin_anew()
                members = await self._read_one(room)
        return [member.entry for member in members if member.left_ms is None]

    async def _read_one(self, room: str) -> list[PresenceMember]:
        await self._flush()
        [members] = await self._store.read([room])
        return members

    # --- one turn after another ---------------------------------------------------------------------------------------

    async def _work(self, task: Supervised) -> None:
        while True:
            self._wake.clear()
            async with self._lock:
                try:
                    await self._turn()
                except PresenceLost:
                    await self._begin_anew()
                    await self._turn()
            task.mark_healthy()
            try:
                async with asyncio.timeout(self._idle_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _idle_s(self) -> float:
        times = [self._beat_at, self._refresh_at]
        if self._watchers.next_at is not None:
            times.append(max(self._settled_at, self._watchers.next_at))
        if self._members.next_at is not None:
            times.append(self._members.next_at)
        return max(0.0, min(times) - self._clock())

    async def _turn(self) -> None:
        await self._flush()
        if self._beat_at <= self._clock():
            await self._store.beat(self._members.rooms)
            self._beat_at = self._clock() + self._beat_s
            await self._sweep()
        if self._refresh_at <= self._clock():
            self._watchers.read_all()
            self._refresh_at = self._clock() + self._settings.refresh_s
        if self._settled_at <= self._clock():
            await self._watchers.read_due(self._store)

    async def _begin_anew(self) -> None:
        """The store has forgotten this instance. Others it will have forgotten too, so for a while nobody looks."""
        _log.warning("presence was lost: writing it again")
        await self._store.register()
        self._settled_at = self._clock() + self._beat_s + self._settings.window.total_seconds()
        self._members.begin_anew()

    async def _sweep(self) -> None:
        if not self._swept:
            self._swept = [room for room in self._members.rooms if room not in self._watchers.rooms]
        rooms, self._swept = self._swept[:_SWEPT], self._swept[_SWEPT:]
        if rooms:
            await self._store.read(rooms)

    async def _flush(self) -> None:
        """Write what has changed, and nudge those who watch it."""
        with self._members.changes() as changes:
            if changes:
                await self._store.write(changes)
        rooms = {change.room for change in changes}
        try:
            await self._command(map(presence_room, rooms), Moved())
        except BackendUnavailable as error:
            _log.debug("watchers of presence were not nudged, they will see it at the next refresh: %s", error)
