"""Where this instance is in the history of each room that has members here. Synchronous: no await, no race."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum

from jararaca_ws.backends.base import Entry, StreamPosition
from jararaca_ws.wire.retained import NOWHERE

__all__ = ["Stream", "Streams", "Verdict"]

_MAX_WAITING_BYTES = 128 * 1024
"""They are delivered in one go: more would make slow consumers of fast ones. The rest is read from the history."""

_ENTRY_OVERHEAD = 256


class Verdict(Enum):
    """What becomes of an entry that has arrived."""

    DELIVER = 0
    DUPLICATE = 1
    #: Something before it is missing: it waits, and the room has to be healed.
    HOLE = 2
    #: The room is being healed: it waits.
    WAIT = 3


class Stream:
    """How far one room has come here.

    Attributes:
        position: everything up to here was delivered; None until it is known.
        is_healing: entries may be missing; those that arrive wait until they have been read from the history.
    """

    __slots__ = ("_bytes", "_has_overflowed", "_waiting", "is_healing", "position")

    def __init__(self) -> None:
        self.position: StreamPosition | None = None
        self.is_healing = False
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        # Whether some could not wait: they are read from the history, as if they had been missed.
        self._has_overflowed = False

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def accept(self, entry: Entry) -> Verdict:
        """Say what becomes of an entry that has arrived; to be delivered at once where it is `Verdict.DELIVER`."""
        if self.is_healing:
            self._wait(entry)
            return Verdict.WAIT
        if self._is_next(entry.position):
            self.position = entry.position
            return Verdict.DELIVER
        if self._is_old(entry.position):
            return Verdict.DUPLICATE
        self.is_healing = True
        self._wait(entry)
        return Verdict.HOLE

    def _is_next(self, position: StreamPosition) -> bool:
        # The first that arrives after the subscription tells where we are, where nobody has said so before.
        here = self.position
        return here is None or (
            position.offset == here.offset + 1 and (position.epoch == here.epoch or here == NOWHERE)
        )

    def _is_old(self, position: StreamPosition) -> bool:
        here = self.position
        return here is not None and position.epoch == here.epoch and position.offset <= here.offset

    def _wait(self, entry: Entry) -> None:
        size = len(entry.payload) + _ENTRY_OVERHEAD
        if self._has_overflowed or self._bytes + size > _MAX_WAITING_BYTES:
            self._has_overflowed = True
            return
        self._waiting.append(entry)
        self._bytes += size

    def resume(self, position: StreamPosition) -> list[Entry]:
        """Everything up to this position has been delivered: the entries to deliver now, of those that waited.

        It is healed when nothing is left to wait for; otherwise, after an epoch or an entry that the history did not
        have when it was read, it is not.
        """
        waiting, self._waiting = self._waiting, deque()
        overflowed, self._has_overflowed = self._has_overflowed, False
        self._bytes = 0
        self.position = position
        self.is_healing = False
        ready = [entry for entry in waiting if self.accept(entry) is Verdict.DELIVER]
        self.is_healing = self.is_healing or overflowed
        return ready

    def forget_waiting(self) -> int:
        """Let go of what waits, because the history does not know it; returns how many. Healed after that."""
        count = len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self.is_healing = False
        return count


class Streams:
    """The streams of the rooms that have a member on this instance.

    Attributes:
        gaps: how often the backend may have missed something; a position that was read before counts for nothing.
    """

    __slots__ = ("_streams", "gaps")

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self.gaps = 0

    def open(self, room: str) -> None:
        """The room has its first member."""
        self._streams[room] = Stream()

    def close(self, rooms: Iterable[str]) -> None:
        """The rooms have lost their last member."""
        for room in rooms:
            self._streams.pop(room, None)

    def get(self, room: str) -> Stream | None:
        return self._streams.get(room)

    def __contains__(self, room: str) -> bool:
        return room in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def position(self, room: str) -> StreamPosition:
        """How far the room has come here; `NOWHERE` where that is not known."""
        stream = self._streams.get(room)
        return NOWHERE if stream is None or stream.position is None else stream.position

    def may_have_missed(self, rooms: Iterable[str]) -> list[str]:
        """The link was lost: the rooms of these that have to be healed. From now on their entries wait."""
        self.gaps += 1
        known = [(room, stream) for room in rooms if (stream := self._streams.get(room)) and stream.position]
        for _, stream in known:
            stream.is_healing = True
        return [room for room, _ in known]
