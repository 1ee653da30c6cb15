"""The log of a chaos run, and what the promises say to it."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from jararaca_ws.backends.base import StreamPosition
from tests.faults.history import History, Message, Promise

__all__ = ["Event", "Log", "Noted", "Verdict", "judge"]


class Noted(Enum):
    SENDING = "sending"
    ACCEPTED = "accepted"
    #: By the bus: it comes to its room some time, and then it is owed to whoever comes back for it.
    HANDED_OVER = "handed over"
    #: From here on the receiver is owed what is accepted.
    JOINED = "joined"
    #: A receiver that is not told of gaps, and so is owed nothing that is not kept.
    JOINED_UNTOLD = "joined, not told of gaps"
    #: The connection is no more. For a receiver of the one connection: it got nothing after its last receipt.
    GONE = "gone"
    RECEIVED = "received"
    #: A place in a room's history whose message came through another room.
    PASSED = "passed"
    GAP = "gap"
    RECOVERED = "recovered"
    NOT_RECOVERED = "not recovered"
    #: Something that no promise is about and that must not be: an answer 500, an unknown close code, a dead process.
    WRONG = "wrong"


class Event(NamedTuple):
    at_s: float
    noted: Noted
    # Which messages it is about.
    promise: Promise
    # Sender, receiver, or what went wrong.
    who: str
    room: str
    # None where it is not about one message.
    message: Message | None = None
    # None where it has no place in a history.
    position: StreamPosition | None = None


class Log:
    """Everything that senders and clients saw, in its order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(
        self,
        noted: Noted,
        promise: Promise,
        who: str,
        room: str = "",
        message: Message | None = None,
        position: StreamPosition | None = None,
    ) -> None:
        self.events.append(Event(time.monotonic(), noted, promise, who, room, message, position))

    def wrong(self, what: str) -> None:
        self.note(Noted.WRONG, Promise.RECOVERABLE, what)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a run, in words, and how much was looked at."""

    wrongs: Sequence[str]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not self.wrongs

    def __str__(self) -> str:
        counts = "\n".join(f"{count:>8} {what}" for what, count in self.counts.items())
        shown = "\n".join(f"  {wrong}" for wrong in self.wrongs[:40])
        return f"{counts}\n" + (f"BROKEN: {len(self.wrongs)} wrongs\n{shown}" if self.wrongs else "all promises kept")


def judge(events: Sequence[Event]) -> Verdict:
    """Hold the log of a run against the promises.

    The Redis of a run forgets nothing that it has accepted, so ``recovered: false`` is wrong as well.
    """
    wrongs = [event.who for event in events if event.noted is Noted.WRONG]
    wrongs += [
        f"{event.who} was told recovered: false in {event.room}"
        for event in events
        if event.noted is Noted.NOT_RECOVERED
    ]
    passing = [event for event in events if event.promise is Promise.EPHEMERAL]
    kept = [event for event in events if event.promise is Promise.RECOVERABLE]
    for what, promise, of_it in (
        ("not kept", Promise.EPHEMERAL, passing),
        ("kept", Promise.RECOVERABLE, _in_one_room(kept)),
        ("kept, to two rooms", Promise.EPHEMERAL, _in_two_rooms(kept)),  # each once; its offsets are in the rooms' own
    ):
        violations = _history(of_it).violations(promise)
        wrongs += [f"{one.receiver}, {what}: {tuple(one.message)}: {one.kind.value}" for one in violations]
    return Verdict(wrongs, _counts(events))


def _is_to_two(event: Event) -> bool:
    return event.message is not None and event.message.room is not None and " " in event.message.room


def _in_one_room(events: Iterable[Event]) -> Iterator[Event]:
    """What went to two rooms is a place in each of them, that is all."""
    for event in events:
        if not _is_to_two(event):
            yield event
        elif event.noted is Noted.RECEIVED:
            yield event._replace(noted=Noted.PASSED, message=None)


def _in_two_rooms(events: Sequence[Event]) -> Iterator[Event]:
    """Only what went to two rooms, each two as if they were one. Who is in one of the two is in that."""
    both = {event.message.room for event in events if event.message is not None and event.message.room is not None}
    joined: set[tuple[str, str]] = set()
    for event in events:
        if event.noted is Noted.JOINED:
            for rooms in sorted(both):
                if " " in rooms and event.room in rooms.split() and (event.who, rooms) not in joined:
                    joined.add((event.who, rooms))
                    yield event._replace(room=rooms)
        elif event.noted is Noted.GONE:
            yield event
        elif event.message is not None and event.message.room is not None and _is_to_two(event):
            yield event._replace(room=event.message.room, position=None)


def _counts(events: Sequence[Event]) -> dict[str, int]:
    noted = Counter(event.noted for event in events)
    sent, accepted = noted[Noted.SENDING], noted[Noted.ACCEPTED] + noted[Noted.HANDED_OVER]
    return {
        "sent": sent,
        "accepted": accepted,
        "unknown": sent - accepted,
        "received": noted[Noted.RECEIVED],
        "rooms recovered": noted[Noted.RECOVERED],
        "rooms not recovered": noted[Noted.NOT_RECOVERED],
        "gaps told": noted[Noted.GAP],
    }


class _Replaying:
    """Writes a `History` from events, at their times."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.history = History(lambda: self._now_s)
        self._begun_s: dict[Message, float] = {}
        # By receiver and room: until when it is known to have got what was owed.
        self._known_until_s: dict[str, dict[str, float]] = defaultdict(dict)
        self._untold: set[str] = set()

    def note(self, event: Event) -> None:
        self._now_s = event.at_s
        history, who, room, message = self.history, event.who, event.room, event.message
        if event.noted is Noted.GONE:
            self._gone(who)
        elif event.noted in (Noted.JOINED, Noted.JOINED_UNTOLD):
            self._join(event)
            if event.noted is Noted.JOINED_UNTOLD:
                self._untold.add(who)
        elif event.noted is Noted.GAP:
            history.gap(who, room)
        elif event.noted is Noted.PASSED and event.position is not None:
            history.passed(who, room, event.position)
        elif event.noted is Noted.NOT_RECOVERED:
            history.unrecovered(who, room)
        elif message is not None:
            self._note_message(event, message)

    def _join(self, event: Event) -> None:
        self.history.joined(event.who, event.room)
        self._known_until_s[event.who][event.room] = event.at_s

    def _note_message(self, event: Event, message: Message) -> None:
        if event.noted is Noted.SENDING:
            self._begun_s.setdefault(message, event.at_s)
            self.history.sending(*message)
        elif event.noted is Noted.ACCEPTED:
            self.history.accepted(message)
        elif event.noted is Noted.HANDED_OVER:
            self._now_s = sys.float_info.max  # in time only for those who never leave
            self.history.accepted(message)
        elif event.noted is Noted.RECEIVED:
            self.history.received(event.who, message, _place(event.position))
            # What had been accepted before this one's sending began came before it, or never comes.
            known = self._known_until_s[event.who]
            known[event.room] = max(known.get(event.room, 0.0), self._begun_s.get(message, 0.0))

    def _gone(self, who: str) -> None:
        for room, until_s in self._known_until_s.pop(who, {}).items():
            self._now_s = 0.0 if who in self._untold else until_s
            self.history.left(who, room)


def _place(position: StreamPosition | None) -> StreamPosition | None:
    """One name for it. An epoch that takes over goes on counting, and what is read later has the newer epoch.

    With a Redis that forgets nothing the offset alone is the place.
    """
    return None if position is None else StreamPosition("", position.offset)


def _history(events: Iterable[Event]) -> History:
    replaying = _Replaying()
    for event in events:
        replaying.note(event)
    return replaying.history
