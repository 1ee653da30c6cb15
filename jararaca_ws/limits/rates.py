"""How often something may happen: token buckets, each kept as one number, the moment at which it is full again.

That is the generic cell rate algorithm: it answers as a bucket that is filled all the time does, and a bucket that is
full needs no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from jararaca_ws.errors import ConfigurationError

__all__ = ["Buckets", "Rate"]

_FIRST_SWEEP = 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a time: ``Rate(100, timedelta(minutes=1))``.

    A bucket of ``burst`` tokens that is filled evenly with ``count`` tokens in ``per``; each takes one.

    Attributes:
        burst: how many may come at once, after a pause; None: ``count``.
        interval_s: in how many seconds a token comes.
        depth_s: in how many seconds an empty bucket is full.

    Raises:
        ConfigurationError: a count or a burst below 1, or no time.
    """

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int | None = None
    interval_s: float = field(init=False, repr=False, compare=False)
    depth_s: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"count": self.count, "burst": self.count if self.burst is None else self.burst}
        for name, value in given.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a whole number, at least 1")
        per: Any = self.per
        if not isinstance(per, timedelta) or per <= timedelta(0):
            raise ConfigurationError(f"per={per!r} cannot be", "give a timedelta above zero")
        # Worked out once: they are asked for with each message.
        interval_s = per.total_seconds() / self.count
        object.__setattr__(self, "interval_s", interval_s)
        object.__setattr__(self, "depth_s", interval_s * given["burst"])


class Buckets:
    """A bucket for each key, in memory that is bounded.

    Full buckets go by and by. Where there are ``max_keys`` that are not full, those nearest to it go too: whoever
    brings that many keys gains a few tokens by it, and no more memory.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, max_keys: int = 65_536, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_at = min(_FIRST_SWEEP, max_keys)

    def __len__(self) -> int:
        """How many buckets are held."""
        return len(self._full_at)

    def take(self, key: str, rate: Rate) -> float:
        """Take a token: 0.0. Where there is none: how many seconds it takes until there is one; nothing is taken."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + rate.interval_s
        missing_s = full_at - now - rate.depth_s
        if missing_s > 1e-6:  # finer than any clock, coarser than what adding floats loses
            return missing_s
        self._full_at[key] = full_at
        if len(self._full_at) > self._sweep_at:
            self._sweep(now)
        return 0.0

    def _sweep(self, now: float) -> None:
        kept = self._max_keys // 2
        if len(self._full_at) > kept:
            now = max(now, sorted(self._full_at.values())[-kept - 1])
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = min(max(_FIRST_SWEEP, 2 * len(self._full_at)), self._max_keys)
