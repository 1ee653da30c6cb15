"""Which members of this instance's rooms are written to the presence store, and which are to be. Synchronous."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

from jararaca_ws.backends.presence import PresenceChange
from jararaca_ws.rooms import RoomRegistry, is_internal
from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["TrackedMembers"]


class TrackedMembers:
    """Compares what is with what was written, so what comes and goes between two writings costs nothing.

    Args:
        registry: what is.
        grace_s: for so long those who left stay marked.
        clock: seconds, monotonic.
    """

    def __init__(self, registry: RoomRegistry[WebSocketConnection], grace_s: float, clock: Callable[[], float]) -> None:
        self._registry = registry
        self._grace_s = grace_s
        self._clock = clock
        # What may differ from what was written.
        self._touched: dict[tuple[str, WebSocketConnection], None] = {}
        # By room and connection. What was tried to be written counts: it may be there though nobody said so.
        self._written: dict[str, dict[str, PresenceChange]] = {}
        # The marks of those who left, and until when they stand: oldest first.
        self._marks: dict[tuple[str, str], float] = {}

    @property
    def rooms(self) -> Collection[str]:
        """Those in which members are written: a live view."""
        return self._written.keys()

    @property
    def next_at(self) -> float | None:
        """When the first mark is to be taken away; None where there is none."""
        return next(iter(self._marks.values()), None)

    def touch(self, room: str, connection: WebSocketConnection) -> None:
        """The connection has joined or left the room, or is another in it than before."""
        if room in self._registry.rooms_of(connection) or self._is_written(room, connection.id):
            self._touched[room, connection] = None
        else:
            # It came and went between two writings; those may be far apart, while the store is away.
            self._touched.pop((room, connection), None)

    def begin_anew(self) -> None:
        """Nothing of what was written is there."""
        self._written.clear()
        self._marks.clear()
        for room in self._registry:
            if not is_internal(room):
                self._touched |= dict.fromkeys((room, connection) for connection in self._registry.members(room))

    @contextmanager
    def changes(self) -> Iterator[list[PresenceChange]]:
        """What is to be written. It counts as written once the block has ended without an error."""
        touched, self._touched = self._touched, {}
        changes = [change for room, connection in touched if (change := self._change(room, connection)) is not None]
        changes += self._faded()
        try:
            yield changes
        except BaseException:
            self._touched = touched | self._touched
            self._doubt(changes)
            raise
        self._note(changes)

    def _doubt(self, changes: Sequence[PresenceChange]) -> None:
        """They may be written or not: what stands there differs from whatever is to stand there next."""
        for change in changes:
            if self._is_written(change.room, change.connection_id):
                self._written[change.room][change.connection_id] = change._replace(kind="gone")

    def _change(self, room: str, connection: WebSocketConnection) -> PresenceChange | None:
        """What is to be written of a connection in a room; None where that stands there already."""
        written = self._written.get(room, {}).get(connection.id)
        if room not in self._registry.rooms_of(connection):
            return None if written is None else written._replace(kind="left" if self._grace_s else "gone")
        change = PresenceChange("here", room, connection.id, connection.user_id, connection.metadata)
        if change == written:
            return None
        self._written.setdefault(room, {})[connection.id] = change
        return change

    def _faded(self) -> list[PresenceChange]:
        now = self._clock()
        faded = takewhile(lambda mark: mark[1] <= now, self._marks.items())
        return [PresenceChange("gone", *key, None, {}) for key, _ in faded if not self._is_written(*key)]

    def _is_written(self, room: str, connection_id: str) -> bool:
        return connection_id in self._written.get(room, ())

    def _note(self, changes: Sequence[PresenceChange]) -> None:
        for kind, room, connection_id, *_ in changes:
            self._marks.pop((room, connection_id), None)
            if kind == "here":
                continue
            if self._is_written(room, connection_id):
                del self._written[room][connection_id]
                if not self._written[room]:
                    del self._written[room]
            if kind == "left":
                self._marks[room, connection_id] = self._clock() + self._grace_s
