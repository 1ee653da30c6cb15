"""What a backend does that keeps presence: who is in which room, as instances write it and read it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

__all__ = ["PresenceBackend", "PresenceChange", "PresenceEntry", "PresenceMember", "PresenceStore"]


class PresenceEntry(NamedTuple):
    """One connection that is in a room, on whichever instance.

    Attributes:
        user_id: None where it has not identified itself.
        metadata: what its application has set.
    """

    connection_id: str
    instance_id: str
    user_id: str | None
    metadata: dict[str, Any]

    @property
    def identity(self) -> str:
        """Who it is: all connections of a user are one, and each anonymous connection is one of its own."""
        return f"connection:{self.connection_id}" if self.user_id is None else f"user:{self.user_id}"


class PresenceMember(NamedTuple):
    """A connection as a presence store keeps it.

    Attributes:
        at_ms: when it was last written, by the clock that all instances share.
        left_ms: None while it is in the room, and then for how long it has not been.
    """

    entry: PresenceEntry
    at_ms: int
    left_ms: int | None


class PresenceChange(NamedTuple):
    """What a presence store is to write of one connection of its instance.

    Attributes:
        kind: ``here``: it is in the room, as the rest says. ``left``: it is not, and is remembered for the grace
            period, as the rest says. ``gone``: nothing of it is kept; the rest has no meaning.
    """

    kind: Literal["here", "left", "gone"]
    room: str
    connection_id: str
    user_id: str | None
    metadata: dict[str, Any]


class PresenceStore(Protocol):
    """Who is in which room, as one instance writes it and as all read it.

    An instance is alive for the TTL after its last sign of life. What a dead one has written counts for nothing and
    goes by and by. Every method raises `BackendUnavailable` where it could not be done, or nobody knows; doing it
    again is no harm. All but `register` and `retire` raise `PresenceLost` when this instance is not alive any more.
    """

    async def register(self) -> None:
        """Begin, or begin anew with nothing written: what was written before is a dead instance's."""
        ...

    async def beat(self, rooms: Collection[str]) -> None:
        """A sign of life, and for the rooms too, which are those with a ``here`` of this instance."""
        ...

    async def write(self, changes: Sequence[PresenceChange]) -> None: ...

    async def read(self, rooms: Sequence[str]) -> list[list[PresenceMember]]:
        """For each of the rooms who is in it on live instances, and who left within the grace period."""
        ...

    async def retire(self) -> None:
        """The instance ends. What it has marked as left stays for the grace period; nothing else does."""
        ...


@runtime_checkable
class PresenceBackend(Protocol):
    """A backend that keeps who is in which room, for all instances."""

    def presence_store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> PresenceStore:
        """Made once by each instance. It is used between the backend's start and its shutdown."""
        ...
