"""What each instance holds of what is limited, in one process: the memory backend's part of limits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

__all__ = ["MemoryLimitStore", "MemoryLimits"]


class MemoryLimits:
    """What Redis is to the other backend: the state that the stores of a process share.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        # By instance: until when it lives, and what it holds of each name.
        self.held: dict[str, tuple[float, Counter[str]]] = {}

    def store(self, instance_id: str, *, ttl_ms: int) -> MemoryLimitStore:
        return MemoryLimitStore(self, instance_id, ttl_ms)

    def total(self, name: str) -> int:
        now = self.clock()
        return sum(held[name] for until, held in self.held.values() if until > now)


class MemoryLimitStore:
    """One instance's `LimitStore`."""

    def __init__(self, shared: MemoryLimits, instance_id: str, ttl_ms: int) -> None:
        self._shared = shared
        self._instance_id = instance_id
        self._ttl_s = ttl_ms / 1000

    async def claim(
        self, held: Mapping[str, int], claims: Sequence[Mapping[str, int]], *, anew: bool
    ) -> list[str | None] | None:
        now = self._shared.clock()
        until, mine = self._shared.held.get(self._instance_id, (0.0, Counter[str]()))
        if anew:
            mine = Counter()
        elif until <= now:
            return None
        for name, count in held.items():
            mine[name] = count
        self._shared.held[self._instance_id] = (now + self._ttl_s, mine)
        answers = [self._claim(mine, claim) for claim in claims]
        for name in [name for name, count in mine.items() if count <= 0]:
            del mine[name]
        return answers

    def _claim(self, mine: Counter[str], claim: Mapping[str, int]) -> str | None:
        full = next((name for name, limit in claim.items() if self._shared.total(name) >= limit), None)
        if full is None:
            mine.update(claim.keys())
        return full

    async def retire(self) -> None:
        self._shared.held.pop(self._instance_id, None)
