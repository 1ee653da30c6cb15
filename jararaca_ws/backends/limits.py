"""What a backend does that limits for all instances: token buckets, and how many of something there may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from jararaca_ws.limits.rates import Rate

__all__ = ["LimitStore", "LimitingBackend", "RateLimitingBackend"]


@runtime_checkable
class RateLimitingBackend(Protocol):
    """A backend that keeps token buckets, for all instances."""

    async def take_token(self, key: str, rate: Rate) -> float:
        """Take a token from the bucket of this name, in one round trip.

        Returns 0.0. Where there is none: in how many seconds there is one; nothing was taken then. A bucket always
        has one rate. Cancellation leaves open whether one was taken.

        Raises:
            BackendUnavailable: nobody knows.
        """
        ...


class LimitStore(Protocol):
    """What the instances hold of what there may only be so many of, as one instance says it and as all of them claim.

    An instance is alive for the TTL after its last call. What a dead one has held is free.
    """

    async def claim(
        self, held: Mapping[str, int], claims: Sequence[Mapping[str, int]], *, anew: bool
    ) -> list[str | None] | None:
        """Say what this instance holds, and claim one more of some, in one step that no other instance's is within.

        Each claim names what it wants one of, with how many there may be of that in all. It is granted where all live
        instances together hold fewer, of all that it names; then this instance holds one more of each. Claims are
        looked at in their order. Twice is no harm: it says how much is held, not what has changed.

        Args:
            held: how many of each name; all that there are where ``anew``, otherwise those that have changed.
            claims: none, for a sign of life.
            anew: what was said before holds no more.

        Returns:
            For each claim None, or the name of which there are as many as there may be. In place of the list None, and
            nothing was done, where this instance is dead and does not begin ``anew``.

        Raises:
            BackendUnavailable: nobody knows what was done; the next call begins anew.
        """
        ...

    async def retire(self) -> None:
        """The instance ends: what it holds is free."""
        ...


@runtime_checkable
class LimitingBackend(Protocol):
    """A backend that knows what all instances hold together."""

    def limit_store(self, instance_id: str, *, ttl_ms: int) -> LimitStore:
        """Made once by each instance. It is used between the backend's start and its shutdown."""
        ...
