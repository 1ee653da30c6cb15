"""One room as those who watch its presence know it: differences between two readings of a state. Synchronous."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jararaca_ws.backends.presence import PresenceMember
from jararaca_ws.wire.protocol import PresenceUpdate, PresentIdentity

__all__ = ["View", "first_leave_ms"]


class _Seen(NamedTuple):
    user_id: str | None
    metadata: dict[str, object]


class View:
    """One room as its watchers on this instance know it. Synchronous.

    Args:
        threshold: with more identities than this only their number is told.

    Attributes:
        count: how many identities there were; None before the first reading.
        paused_until: it is not read again before this time, however often it changes.
    """

    __slots__ = ("_known", "_room", "_threshold", "count", "paused_until")

    def __init__(self, room: str, threshold: int) -> None:
        self._room = room
        self._threshold = threshold
        # None while the watchers know nobody by name.
        self._known: dict[str, _Seen] | None = None
        self.count: int | None = None
        self.paused_until = 0.0

    def update(self, members: Iterable[PresenceMember]) -> PresenceUpdate | None:
        """Take a new reading in; what to tell who knew the last one. None: nothing has changed for them."""
        known, count = self._known, self.count
        current = {identity: _seen(member) for identity, member in _newest(members).items()}
        self.count = len(current)
        if self.count > self._threshold:
            return None if known is None and count == self.count else self.only_count()
        self._known = current
        if known is None:
            return self.state()
        return self._difference(known, current) if known != current else None

    def state(self) -> PresenceUpdate:
        """What to tell somebody who knows nothing yet."""
        if self._known is None:
            return self.only_count()
        return self._update("state", joined=_named(self._known, self._known))

    def only_count(self) -> PresenceUpdate:
        """Have the watchers forget all names: the reading has too many, or too large ones."""
        self._known = None
        return self._update("count")

    def _difference(self, known: dict[str, _Seen], current: dict[str, _Seen]) -> PresenceUpdate:
        return self._update(
            "diff",
            joined=_named(current, current.keys() - known.keys()),
            updated=_named(current, (who for who in current.keys() & known.keys() if current[who] != known[who])),
            left=sorted(known.keys() - current.keys()),
        )

    def _update(self, kind: str, **fields: object) -> PresenceUpdate:
        return PresenceUpdate.model_validate({"room": self._room, "kind": kind, "count": self.count, **fields})


def first_leave_ms(members: Iterable[PresenceMember], grace_ms: int) -> int | None:
    """In how many milliseconds the grace period of the first identity ends that is not there; None: all are."""
    left = [member.left_ms for member in _newest(members).values() if member.left_ms is not None]
    return max(0, grace_ms - max(left)) if left else None


def _newest(members: Iterable[PresenceMember]) -> dict[str, PresenceMember]:
    """By identity the connection that speaks for it: of those that are there, or else have left, the newest."""
    newest: dict[str, PresenceMember] = {}
    for member in members:
        identity = member.entry.identity
        other = newest.get(identity)
        if other is None or _rank(member) > _rank(other):
            newest[identity] = member
    return newest


def _rank(member: PresenceMember) -> tuple[bool, int, str]:
    return member.left_ms is None, member.at_ms, member.entry.connection_id


def _seen(member: PresenceMember) -> _Seen:
    return _Seen(member.entry.user_id, member.entry.metadata)


def _named(seen: dict[str, _Seen], identities: Iterable[str]) -> list[PresentIdentity]:
    return [
        PresentIdentity(identity=identity, user_id=seen[identity].user_id, metadata=dict(seen[identity].metadata))
        for identity in sorted(identities)
    ]
