"""The log of a run, every send and every receipt, held afterwards against what was promised."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from jararaca_ws.backends.base import StreamPosition

__all__ = ["History", "Kind", "Message", "Promise", "Violation"]


class Promise(Enum):
    EPHEMERAL = "ephemeral"
    """P1: at most once, in order for each room and sender, losses only where a gap was reported."""
    RECOVERABLE = "recoverable"
    """P2: exactly once, in the order of the offsets, but for what ``recovered: false`` was said of."""


class Kind(Enum):
    LOSS = "accepted, and never received"
    DUPLICATE = "received twice"
    REORDERED = "received after a later one of its sender"
    WRONG_ROOM = "received in a room that was never joined"
    NEVER_SENT = "received, and never sent"
    NO_OFFSET = "received without an offset"
    OFFSET = "its offset does not follow the one before it"
    POSITION = "its position in the history is not the same for all, or is that of another message"


class Message(NamedTuple):
    """One send. A sender sends one message after the other, each with a higher sequence."""

    # None: a broadcast.
    room: str | None
    sender: str
    sequence: int


class Violation(NamedTuple):
    kind: Kind
    receiver: str
    message: Message


@dataclass(slots=True)
class _Sent:
    begun_s: float
    # Infinite while nobody knows whether it was accepted: then it may arrive, and need not.
    accepted_s: float = math.inf


class _Received(NamedTuple):
    message: Message
    position: StreamPosition | None


class _Passed(NamedTuple):
    """A place in the history of a room whose message came through another room; the message stands for it."""

    message: Message
    position: StreamPosition


class _Told(NamedTuple):
    """That something may be missing: which promise it limits, when it was said, and since when it holds."""

    promise: Promise
    at_s: float
    since_s: float


class History:
    """Written while a run goes on, by senders and receivers alike; `violations` reads it afterwards.

    Each call notes the present time, so senders may be other processes of this machine. A receiver is whoever keeps
    count: with history, one that comes back after a lost connection is still the same one, and stays joined.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[Message, _Sent] = {}
        # (receiver, room) -> what came, in its order; and the times of each join and of the leave after it.
        self._streams: dict[tuple[str, str | None], list[_Received | _Passed | _Told]] = defaultdict(list)
        self._joined: dict[tuple[str, str | None], list[list[float]]] = defaultdict(list)

    # --- writing ------------------------------------------------------------------------------------------------------

    def sending(self, room: str | None, sender: str, sequence: int) -> Message:
        """Note that a send begins. A second try of the same one is the same message."""
        message = Message(room, sender, sequence)
        self._sent.setdefault(message, _Sent(self._clock()))
        return message

    def accepted(self, message: Message) -> None:
        """Note that the send has returned, without an error. From here on the message is owed."""
        self._sent[message].accepted_s = self._clock()

    def joined(self, receiver: str, room: str | None) -> None:
        """Note that the join has returned."""
        self._joined[receiver, room].append([self._clock(), math.inf])
        self._streams[receiver, room]  # also one that never receives anything is looked at

    def left(self, receiver: str, room: str | None) -> None:
        """Note that a leave begins, or that the connection was lost."""
        self._joined[receiver, room][-1][1] = self._clock()

    def received(self, receiver: str, message: Message, position: StreamPosition | None = None) -> None:
        """Note a receipt: ``message`` as its own content has it."""
        self._streams[receiver, message.room].append(_Received(message, position))

    def passed(self, receiver: str, room: str, position: StreamPosition) -> None:
        """Note that what stands at this place has come through another room."""
        stand_in = Message(room, "(through another room)", position.offset)
        self._streams[receiver, room].append(_Passed(stand_in, position))

    def gap(self, receiver: str, room: str | None, *, since_s: float = math.inf) -> None:
        """Note a reported gap.

        It excuses what is missing between the receipts before and after it; with ``since_s``, a time of the same clock,
        also all that was under way between then and now.
        """
        self._streams[receiver, room].append(_Told(Promise.EPHEMERAL, self._clock(), since_s))

    def unrecovered(self, receiver: str, room: str) -> None:
        """Note a ``recovered: false``. It excuses what is missing between the receipts before and after it."""
        self._streams[receiver, room].append(_Told(Promise.RECOVERABLE, self._clock(), math.inf))

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def receipts(self) -> int:
        return sum(isinstance(one, _Received) for stream in self._streams.values() for one in stream)

    @property
    def owed(self) -> int:
        """How many sends were accepted."""
        return sum(sent.accepted_s < math.inf for sent in self._sent.values())

    def verify(self, promise: Promise) -> None:
        """Raise AssertionError where the promise was broken; call it when everything that was sent had time to come."""
        violations = self.violations(promise)
        shown = "\n".join(f"{one.receiver}: {one.message}: {one.kind.value}" for one in violations[:20])
        assert not violations, f"{len(violations)} violations of {promise.value}:\n{shown}"

    def violations(self, promise: Promise) -> list[Violation]:
        """All that breaks the promise; one cause may show up as several."""
        return [*self._violations(promise), *(self._of_positions() if promise is Promise.RECOVERABLE else ())]

    def _violations(self, promise: Promise) -> Iterator[Violation]:
        owed = defaultdict[str | None, list[Message]](list)
        for message, sent in self._sent.items():
            if sent.accepted_s < math.inf:
                owed[message.room].append(message)
        for (receiver, room), stream in self._streams.items():
            found = [*self._of_receipts(receiver, stream), *self._losses(promise, receiver, stream, room, owed[room])]
            if promise is Promise.RECOVERABLE:
                found += _of_offsets(stream)
            for kind, message in found:
                yield Violation(kind, receiver, message)

    def _of_receipts(self, receiver: str, stream: list[_Received | _Passed | _Told]) -> Iterator[tuple[Kind, Message]]:
        seen: set[Message] = set()
        latest: dict[str, int] = {}
        for message, _ in _receipts(stream):
            if message not in self._sent:
                yield Kind.NEVER_SENT, message
            if not self._joined[receiver, message.room]:
                yield Kind.WRONG_ROOM, message
            if message in seen:
                yield Kind.DUPLICATE, message
            elif message.sequence < latest.get(message.sender, -1):
                yield Kind.REORDERED, message
            seen.add(message)
            latest[message.sender] = max(message.sequence, latest.get(message.sender, -1))

    def _losses(
        self,
        promise: Promise,
        receiver: str,
        stream: list[_Received | _Passed | _Told],
        room: str | None,
        owed: list[Message],
    ) -> Iterator[tuple[Kind, Message]]:
        seen = {message for message, _ in _receipts(stream)}
        excuses = _excuses(promise, stream)
        for message in owed:
            sent = self._sent[message]
            if (
                message not in seen
                and any(join <= sent.begun_s and sent.accepted_s <= left for join, left in self._joined[receiver, room])
                and not any(excuse.covers(message, sent) for excuse in excuses)
            ):
                yield Kind.LOSS, message

    def _of_positions(self) -> Iterator[Violation]:
        """One place in a room's history is one message, whoever receives it."""
        of_message: dict[Message, StreamPosition] = {}
        at_position: dict[tuple[str | None, StreamPosition], Message] = {}
        for (receiver, room), stream in self._streams.items():
            for message, position in _receipts(stream):
                if position is not None and (
                    of_message.setdefault(message, position) != position
                    or at_position.setdefault((room, position), message) != message
                ):
                    yield Violation(Kind.POSITION, receiver, message)


@dataclass(slots=True)
class _Excuse:
    """What one report of a possible loss covers, by sender: sequences above the first and below the second figure."""

    told: _Told
    before: dict[str, int]
    after: dict[str, int]

    def covers(self, message: Message, sent: _Sent) -> bool:
        above, below = self.before.get(message.sender, -1), self.after.get(message.sender, math.inf)
        between_receipts = above < message.sequence < below and sent.begun_s <= self.told.at_s
        return between_receipts or (self.told.since_s <= sent.accepted_s and sent.begun_s <= self.told.at_s)


def _receipts(stream: list[_Received | _Passed | _Told]) -> list[_Received]:
    return [one for one in stream if isinstance(one, _Received)]


def _excuses(promise: Promise, stream: list[_Received | _Passed | _Told]) -> list[_Excuse]:
    found = []
    for place, told in enumerate(stream):
        if isinstance(told, _Told) and told.promise is promise:
            before: dict[str, int] = {}
            after: dict[str, int] = {}
            for message, _ in _receipts(stream[:place]):
                before[message.sender] = max(message.sequence, before.get(message.sender, -1))
            for message, _ in _receipts(stream[place:]):
                after.setdefault(message.sender, message.sequence)
            found.append(_Excuse(told, before, after))
    return found


def _of_offsets(stream: list[_Received | _Passed | _Told]) -> Iterator[tuple[Kind, Message]]:
    """Each offset follows the one before; an epoch that has taken over from another goes on counting."""
    # None: any will do, after the beginning and where something was not recovered.
    expected: int | None = None
    for one in stream:
        if isinstance(one, _Told):
            expected = None if one.promise is Promise.RECOVERABLE else expected
        elif one.position is None:
            yield Kind.NO_OFFSET, one.message
        else:
            if expected not in (None, one.position.offset):
                yield Kind.OFFSET, one.message
            expected = one.position.offset + 1
