"""Histories of rooms in the memory of this process."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from itertools import islice

from jararaca_ws.backends.base import Entry, Publication, Replay, Retention, StreamPosition

__all__ = ["MemoryHistories", "SentIds"]

_META_TTL_S = 30 * 24 * 3600.0
"""How long after its newest message a room's epoch and offset are remembered."""


@dataclass(slots=True)
class _Kept:
    """What one room keeps.

    Attributes:
        since: when the newest message came.
        retention: the most that a message in it has asked for.
    """

    epoch: str
    retention: Retention
    since: float = 0.0
    offset: int = 0
    entries: deque[Entry] = field(default_factory=deque)

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.epoch, self.offset)

    def expire(self, now: float) -> None:
        """Let go of the messages when the newest is too old."""
        if now - self.since > self.retention.ttl_ms / 1000:
            self.entries.clear()


class MemoryHistories:
    """By room. Epochs are random, so that a client of an earlier start of the process is not taken for one of this."""

    def __init__(self) -> None:
        # Each append looks at the first two, and puts them last: so all are looked at in turn.
        self._rooms: OrderedDict[str, _Kept] = OrderedDict()

    def append(self, room: str, publication: Publication, retention: Retention) -> Entry:
        """Keep a message; its place in the room."""
        now = time.monotonic()
        self._sweep(now)
        kept = self._rooms.get(room)
        if kept is None:
            kept = self._rooms[room] = _Kept(secrets.token_hex(8), retention)
        kept.expire(now)
        kept.retention = Retention(*map(max, kept.retention, retention)) if kept.entries else retention
        kept.since = now
        kept.offset += 1
        entry = Entry(kept.position, publication.id, publication.payload)
        kept.entries.append(entry)
        while len(kept.entries) > kept.retention.size:
            kept.entries.popleft()
        return entry

    def _sweep(self, now: float) -> None:
        for room in tuple(islice(self._rooms, 2)):
            if now - self._rooms[room].since > _META_TTL_S:
                del self._rooms[room]
            else:
                self._rooms[room].expire(now)
                self._rooms.move_to_end(room)

    def position(self, room: str) -> StreamPosition | None:
        """Of the newest message; None where there was none."""
        kept = self._rooms.get(room)
        return None if kept is None else kept.position

    def read(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        """`HistoryBackend.history`."""
        kept = self._rooms.get(room)
        if kept is None:
            return Replay(StreamPosition("", 0), [], since is None)
        kept.expire(time.monotonic())
        entries = list(kept.entries)
        if since is None:
            return Replay(kept.position, entries[-limit:], True)
        missed = kept.offset - since.offset
        if since.epoch != kept.epoch or since.offset < 0 or not 0 <= missed <= min(limit, len(entries)):
            return Replay(kept.position, [], False)
        return Replay(kept.position, entries[len(entries) - missed :], True)


class SentIds:
    """The ids of sends, remembered for a time, by room."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._sent: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_first(self, room: str, publication_id: str) -> bool:
        """Whether this id comes to the room for the first time."""
        now = time.monotonic()
        while self._sent and now - next(iter(self._sent.values())) > self._window_s:
            self._sent.popitem(last=False)
        key = (room, publication_id)
        if key in self._sent:
            return False
        self._sent[key] = now
        return True
