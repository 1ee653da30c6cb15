"""Values for a while, in one process: what the memory backend keeps as a `KeepingBackend`."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

__all__ = ["MemoryValues"]


class MemoryValues:
    """Values with a time to live. Those whose time is over go when another is put.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}
        # When each value was to go; of one that was replaced or taken since, too.
        self._ends: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: str, value: bytes, ttl_ms: int) -> None:
        self._drop_old()
        _, before = self._values.get(key, (b"", 0.0))
        ends_at = max(self._clock() + ttl_ms / 1000, before)
        self._values[key] = value, ends_at
        heapq.heappush(self._ends, (ends_at, key))

    def get(self, key: str) -> bytes | None:
        value, ends_at = self._values.get(key, (None, 0.0))
        return value if ends_at > self._clock() else None

    def take(self, key: str) -> bytes | None:
        value = self.get(key)
        self._values.pop(key, None)
        return value

    def _drop_old(self) -> None:
        while self._ends and self._ends[0][0] <= self._clock():
            ends_at, key = heapq.heappop(self._ends)
            if self._values.get(key, (b"", None))[1] == ends_at:
                del self._values[key]
