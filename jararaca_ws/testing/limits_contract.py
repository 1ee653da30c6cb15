"""The contract of a `RateLimitingBackend`: limits that hold for all instances together."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from jararaca_ws.backends.base import RateLimitingBackend
from jararaca_ws.limits.rates import Rate
from jararaca_ws.testing.recorder import AWKWARD_ROOMS, Check, MakeBackend, across_instances, on_one_instance, started

__all__ = ["LIMITS_CONTRACT"]

_SLOW = Rate(3, timedelta(hours=1))


@on_one_instance
async def a_bucket_has_its_burst_and_no_more(make: MakeBackend) -> None:
    async with started(make) as [one]:
        if isinstance(one.backend, RateLimitingBackend):
            assert [await one.backend.take_token("a", _SLOW) for _ in range(3)] == [0, 0, 0]
            assert 1190 < await one.backend.take_token("a", _SLOW) <= 1200
            assert await one.backend.take_token("b", _SLOW) == 0


@on_one_instance
async def a_bucket_fills_with_time(make: MakeBackend) -> None:
    rate = Rate(1, timedelta(seconds=0.05))
    async with started(make) as [one]:
        if isinstance(one.backend, RateLimitingBackend):
            assert await one.backend.take_token("a", rate) == 0
            wait_s = await one.backend.take_token("a", rate)
            assert 0 < wait_s <= 0.05
            await asyncio.sleep(wait_s + 0.005)
            assert await one.backend.take_token("a", rate) == 0


@on_one_instance
async def the_names_of_buckets_are_literal(make: MakeBackend) -> None:
    once = Rate(1, timedelta(hours=1))
    async with started(make) as [one]:
        if isinstance(one.backend, RateLimitingBackend):
            assert [await one.backend.take_token(name, once) for name in AWKWARD_ROOMS] == [0] * len(AWKWARD_ROOMS)
            assert all([await one.backend.take_token(name, once) for name in AWKWARD_ROOMS])


@across_instances
async def a_bucket_is_one_for_all_instances(make: MakeBackend) -> None:
    rate = Rate(100, timedelta(hours=1))
    async with started(make, 2) as [one, two]:
        backends = [each.backend for each in (one, two) if isinstance(each.backend, RateLimitingBackend)]
        waits = await asyncio.gather(*(backend.take_token("a", rate) for backend in backends for _ in range(100)))
        assert waits.count(0) == min(100, len(waits))


LIMITS_CONTRACT: list[Check] = [
    a_bucket_has_its_burst_and_no_more,
    a_bucket_fills_with_time,
    the_names_of_buckets_are_literal,
    a_bucket_is_one_for_all_instances,
]
"""Every check, in an order in which the first that fails says most."""
