"""The contracts of a `RateLimitingBackend` and a `LimitingBackend`: limits that hold for all instances together."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from jararaca_ws.backends.limits import LimitingBackend, LimitStore, RateLimitingBackend
from jararaca_ws.limits.rates import Rate
from jararaca_ws.testing.recorder import (
    AWKWARD_ROOMS,
    TIMEOUT_S,
    Check,
    MakeBackend,
    across_instances,
    on_one_instance,
    started,
)

__all__ = ["LIMITS_CONTRACT"]

_LONG_MS = 60_000
_SHORT_MS = 150
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


# --- what there may only be so many of --------------------------------------------------------------------------------


def _limits_check(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    """A check that asks for nothing where a backend keeps no such limits."""

    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if isinstance(make(), LimitingBackend):
            await check(make)

    return guarded


def _store(backend: object, instance_id: str, ttl_ms: int = _LONG_MS) -> LimitStore:
    assert isinstance(backend, LimitingBackend)
    return backend.limit_store(instance_id, ttl_ms=ttl_ms)


@asynccontextmanager
async def _stores(make: MakeBackend, *ttls_ms: int) -> AsyncIterator[list[LimitStore]]:
    """Stores of as many instances that have begun: those of one backend share its state, as those of several must."""
    async with started(make) as [one]:
        stores = [_store(one.backend, f"instance-{n}", ttl_ms) for n, ttl_ms in enumerate(ttls_ms)]
        for store in stores:
            assert await store.claim({}, [], anew=True) == []
        yield stores


@_limits_check
async def as_many_are_granted_as_there_may_be(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        assert await one.claim({}, [{"a": 3}] * 2, anew=False) == [None, None]
        assert await two.claim({}, [{"a": 3}] * 2, anew=False) == [None, "a"]
        assert await one.claim({"a": 1}, [{"a": 3}] * 2, anew=False) == [None, "a"]
        assert await two.claim({"a": 0}, [], anew=False) == []
        assert await one.claim({}, [{"a": 3}] * 2, anew=False) == [None, "a"]


@_limits_check
async def all_that_a_claim_names_is_granted_or_nothing(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        assert await one.claim({}, [{"a": 9, "b": 1}, {"a": 9, "b": 1}, {"a": 2}, {"a": 2}], anew=False) == [
            None,
            "b",
            None,
            "a",
        ]


@_limits_check
async def what_is_said_again_is_no_more_of_it(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        for _ in range(3):
            assert await one.claim({"a": 2}, [{"a": 4}], anew=False) == [None]
        assert await two.claim({}, [{"a": 4}, {"a": 4}], anew=False) == [None, "a"]


@_limits_check
async def beginning_anew_forgets_what_was_held(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        await one.claim({"a": 5, "b": 5}, [], anew=False)
        await one.claim({"b": 1}, [], anew=True)
        assert await two.claim({}, [{"a": 1}, {"b": 2}, {"b": 2}], anew=False) == [None, None, "b"]


@_limits_check
async def what_a_dead_instance_held_is_free(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _SHORT_MS) as [one, dying]:
        assert await dying.claim({"a": 1}, [], anew=False) == []
        assert await one.claim({}, [{"a": 1}], anew=False) == ["a"]
        async with asyncio.timeout(TIMEOUT_S):
            while await one.claim({}, [{"a": 1}], anew=False) == ["a"]:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)
        # It comes back to life, and is told that it must begin anew.
        assert await dying.claim({}, [{"b": 1}], anew=False) is None
        assert await dying.claim({"a": 1}, [{"b": 1}, {"a": 2}], anew=True) == [None, "a"]


@_limits_check
async def signs_of_life_keep_what_is_held(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, 600) as [one, two]:
        await two.claim({"a": 1}, [], anew=False)
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.9
        while loop.time() < end:
            assert await two.claim({}, [], anew=False) == []
            assert await one.claim({}, [{"a": 1}], anew=False) == ["a"]
            await asyncio.sleep(0.03)


@_limits_check
async def what_an_instance_held_that_ends_is_free(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, ending]:
        await ending.claim({"a": 1}, [], anew=False)
        await ending.retire()
        assert await one.claim({}, [{"a": 1}], anew=False) == [None]


@_limits_check
async def the_names_of_what_is_limited_are_literal(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        assert await one.claim({}, [{name: 1} for name in AWKWARD_ROOMS], anew=False) == [None] * len(AWKWARD_ROOMS)
        assert await two.claim({}, [{name: 1} for name in AWKWARD_ROOMS], anew=False) == AWKWARD_ROOMS


@across_instances
@_limits_check
async def claims_at_once_are_granted_exactly(make: MakeBackend) -> None:
    async with started(make, 2) as backends:
        stores = [_store(each.backend, f"instance-{n}") for n, each in enumerate(backends)]
        for store in stores:
            await store.claim({}, [], anew=True)
        # Each says what it holds by then: what it was granted before.
        granted = [0, 0]

        async def claim(n: int) -> None:
            for _ in range(20):
                answers = await stores[n].claim({"a": granted[n]}, [{"a": 150}] * 5, anew=False)
                assert answers is not None
                granted[n] += answers.count(None)

        await asyncio.gather(claim(0), claim(1))
        assert sum(granted) == 150


LIMITS_CONTRACT: list[Check] = [
    a_bucket_has_its_burst_and_no_more,
    a_bucket_fills_with_time,
    the_names_of_buckets_are_literal,
    a_bucket_is_one_for_all_instances,
    as_many_are_granted_as_there_may_be,
    all_that_a_claim_names_is_granted_or_nothing,
    what_is_said_again_is_no_more_of_it,
    beginning_anew_forgets_what_was_held,
    what_a_dead_instance_held_is_free,
    signs_of_life_keep_what_is_held,
    what_an_instance_held_that_ends_is_free,
    the_names_of_what_is_limited_are_literal,
    claims_at_once_are_granted_exactly,
]
"""Every check, in an order in which the first that fails says most."""
