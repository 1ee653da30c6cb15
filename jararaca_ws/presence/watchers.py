"""Those who watch the presence of rooms, and what they are told: differences between two readings of a state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from jararaca_ws.backends.presence import PresenceMember, PresenceStore
from jararaca_ws.presence.settings import PresenceSettings
from jararaca_ws.presence.view import View, first_leave_ms
from jararaca_ws.rooms import RoomRegistry, presence_room
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import PresenceUpdate, encode

__all__ = ["Watchers"]

_BATCH = 100
"""Rooms in one reading."""

_BUSY = 20
"""Reading takes a twentieth of the time at most: large rooms that change all the time are read less often."""


class Watchers:
    """The watched rooms of one instance: when each is to be read, and what its watchers are told then.

    Args:
        registry: has the watchers of a room in a room of ours.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        registry: RoomRegistry[WebSocketConnection],
        settings: PresenceSettings,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._threshold = settings.threshold
        self._window_s = settings.window.total_seconds()
        self._grace_ms = round(settings.grace.total_seconds() * 1000)
        self._clock = clock
        self._views: dict[str, View] = {}
        # Those that are to be read, and when.
        self._due: dict[str, float] = {}

    @property
    def rooms(self) -> Collection[str]:
        """Those that are watched: a live view."""
        return self._views.keys()

    @property
    def next_at(self) -> float | None:
        """When the first of them is to be read; None where none is."""
        return min(self._due.values(), default=None)

    def add(self, room: str, connection: WebSocketConnection) -> bool:
        """A watcher has joined: it gets the whole state. True: once that is read."""
        view = self._views.get(room)
        if view is None:
            view = self._views[room] = View(room, self._threshold)
        if view.count is None:
            self.read_soon(room)
            return True
        # What is told now is what the next difference begins from: there is no await between them.
        self._tell([connection], view, view.state())
        return False

    def drop_unwatched(self, room: str) -> None:
        """Somebody has joined or left the watchers of the room: perhaps the last one."""
        if not self._registry.members(presence_room(room)):
            self._views.pop(room, None)
            self._due.pop(room, None)

    def clear(self) -> None:
        self._views.clear()
        self._due.clear()

    def read_soon(self, room: str) -> None:
        """The room has changed: it is to be read, unless nobody watches it, once its window is over."""
        view = self._views.get(room)
        if view is not None:
            self._read_at(room, max(self._clock(), view.paused_until))

    def read_all(self) -> None:
        """Every room may have changed without our notice."""
        self._due.update(dict.fromkeys(self._views, self._clock()))

    def _read_at(self, room: str, at: float) -> None:
        self._due[room] = min(at, self._due.get(room, at))

    async def read_due(self, store: PresenceStore) -> None:
        """Read the rooms that are due, and tell their watchers what is new.

        Raises:
            BackendUnavailable: those that were not read stay due.
        """
        now = self._clock()
        due = [room for room, at in self._due.items() if at <= now]
        for first in range(0, len(due), _BATCH):
            await self._read(store, due[first : first + _BATCH])

    async def _read(self, store: PresenceStore, rooms: list[str]) -> None:
        started = self._clock()
        for room in rooms:
            self._due.pop(room, None)
        # Before the reading: what comes meanwhile may not be in it, and waits for the end of the window.
        self._pause(rooms, started + self._window_s)
        try:
            readings = await store.read(rooms)
        except BaseException:
            for room in rooms:
                self.read_soon(room)
            raise
        for room, members in zip(rooms, readings, strict=True):
            self._show(room, members)
        self._pause(rooms, started + _BUSY * (self._clock() - started))

    def _pause(self, rooms: Iterable[str], until: float) -> None:
        for room in rooms:
            view = self._views.get(room)
            if view is not None:
                view.paused_until = max(until, view.paused_until)

    def _show(self, room: str, members: list[PresenceMember]) -> None:
        view = self._views.get(room)
        if view is None:  # nobody watches it any more
            return
        update = view.update(members)
        if update is not None:
            self._tell(self._registry.members(presence_room(room)), view, update)
        leave_ms = first_leave_ms(members, self._grace_ms)
        if leave_ms is not None:
            self._read_at(room, self._clock() + leave_ms / 1000)

    def _tell(self, connections: Iterable[WebSocketConnection], view: View, update: PresenceUpdate) -> None:
        frame = encode(update)
        for connection in connections:
            if frame.size > connection.settings.max_queue_bytes // 2:
                frame = encode(view.only_count())
            if connection.may_be_told:
                connection.enqueue(frame)
