"""How many handshakes an instance takes on in a second, so that clients that all come back at once do not end it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from jararaca_ws.limits.rates import Buckets, Rate

__all__ = ["HandshakePace"]

_LONGEST_S = 30.0
"""Nobody is told to come back later than that."""


class HandshakePace:
    """One token bucket, and a time of its own for each client that it refuses.

    Were all told the same, they would all come back at the same time. So each is told the next moment at which there
    is a token that nobody was told of yet; nothing is held for it.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._bucket = Buckets(1, clock)
        self._told = 0.0

    def take(self) -> float:
        """0.0: it may go on. Otherwise in how many seconds it may try again."""
        missing_s = self._bucket.take("", self._rate)
        if not missing_s:
            return 0.0
        now = self._clock()
        self._told = max(self._told + self._rate.interval_s, now + missing_s)
        wait_s = self._told - now
        if wait_s < _LONGEST_S:
            return wait_s
        # Clients that do not wait are told the later the more often they come: that says nothing any more.
        self._told = now + _LONGEST_S
        return random.uniform(_LONGEST_S / 2, _LONGEST_S)
