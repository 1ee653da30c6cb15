from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jararaca_ws.backends.memory_limits import MemoryLimits, MemoryLimitStore
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.limits.claims import Claims
from tests.unit.played import turns, until


class Store(MemoryLimitStore):
    """A store that can be held up, be away, and forget.

    Attributes:
        calls: how many claims each call had.
        going: a call goes on only while it is set.
    """

    def __init__(self, shared: MemoryLimits, name: str = "one") -> None:
        super().__init__(shared, name, 60_000)
        self.calls: list[int] = []
        self.going = asyncio.Event()
        self.going.set()
        self.is_away = False
        self.does_it_and_fails = False

    async def claim(
        self, held: Mapping[str, int], claims: Sequence[Mapping[str, int]], *, anew: bool
    ) -> list[str | None] | None:
        await self.going.wait()
        self.calls.append(len(claims))
        if self.is_away:
            raise BackendUnavailable("it is away")
        answers = await super().claim(held, claims, anew=anew)
        if self.does_it_and_fails:
            raise BackendUnavailable("its answer was lost")
        return answers


@asynccontextmanager
async def started(store: Store, *, fail_open: bool = True) -> AsyncIterator[Claims]:
    claims = Claims(store, 60, fail_open=fail_open)
    claims.start()
    try:
        await until(lambda: store.calls)
        yield claims
    finally:
        store.going.set()
        await claims.stop()


async def test_what_comes_while_one_call_is_under_way_goes_with_the_next():
    store = Store(MemoryLimits())
    async with started(store) as claims:
        store.going.clear()
        first = asyncio.create_task(claims.claim({"a": 100}))
        await turns()
        others = [asyncio.create_task(claims.claim({"a": 50})) for _ in range(600)]
        await turns()
        store.going.set()
        assert await first is None
        answers = await asyncio.gather(*others)
        assert (answers.count(None), answers.count("a")) == (49, 551)
        assert store.calls[1:] == [1, 256, 256, 88]
        assert claims.held == {"a": 50}


async def test_a_busy_loop_is_not_taken_for_a_store_that_is_away(monkeypatch: pytest.MonkeyPatch):
    class Read(Store):
        """Its answer is read in a few turns of the loop."""

        async def claim(self, *args: Any, **options: Any) -> list[str | None] | None:
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().claim(*args, **options)

    monkeypatch.setattr("jararaca_ws.limits.claims._PATIENCE_S", 0.1)
    shared = MemoryLimits()
    async with started(Read(shared)) as one, started(Read(shared, "two")) as two:
        assert await two.claim({"a": 1}) is None
        claiming = asyncio.create_task(one.claim({"a": 1}))
        for _ in range(10):
            await asyncio.sleep(0)
            time.sleep(0.04)  # noqa: ASYNC251 - everything else stands still
        assert await claiming == "a"


async def test_what_is_released_is_free_for_others():
    shared = MemoryLimits()
    async with started(Store(shared)) as one, started(Store(shared, "two")) as two:
        assert await one.claim({"a": 1, "b": 9}) is None
        assert await two.claim({"b": 9, "a": 1}) == "a"
        one.release(["a", "b"])
        await until(lambda: not shared.total("a"))
        assert await two.claim({"b": 9, "a": 1}) is None
        assert (one.held, two.held) == ({}, {"a": 1, "b": 1})


async def test_who_waits_no_more_holds_nothing():
    shared = MemoryLimits()
    store = Store(shared)
    async with started(store) as claims:
        store.going.clear()
        asked = asyncio.create_task(claims.claim({"a": 1}))
        waiting = asyncio.create_task(claims.claim({"b": 1}))
        await turns()
        asked.cancel()
        await turns()
        late = asyncio.create_task(claims.claim({"c": 1}))
        await turns()
        late.cancel()
        await turns()
        store.going.set()
        assert await waiting is None
        await until(lambda: len(store.calls) > 2)
        assert claims.held == {"b": 1}
        assert [shared.total(name) for name in "abc"] == [0, 1, 0]


async def test_who_is_answered_and_cancelled_in_one_turn_holds_nothing():
    shared = MemoryLimits()
    async with started(Store(shared)) as claims:
        tell, tasks = claims._tell, [asyncio.create_task(claims.claim({"a": 1})) for _ in range(2)]

        def then_cancelled(*answers: Any) -> None:
            tell(*answers)
            for task in tasks:
                task.cancel()

        claims._tell = then_cancelled  # type: ignore[method-assign]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
        await until(lambda: not shared.total("a"))
        assert claims.held == {}


async def test_a_store_that_has_forgotten_us_is_told_all():
    shared = MemoryLimits()
    async with started(Store(shared)) as claims:
        for name in ("a", "a", "b"):
            assert await claims.claim({name: 2}) is None
        shared.held.clear()
        assert await claims.claim({"a": 2}) == "a"
        assert (shared.total("a"), shared.total("b")) == (2, 1)


async def test_what_was_done_though_its_answer_was_lost_is_put_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jararaca_ws.limits.claims._AWAY_S", 0.01)
    shared = MemoryLimits()
    store = Store(shared)
    async with started(store) as claims:
        store.does_it_and_fails = True
        assert await claims.claim({"a": 5}) is None  # counted here
        assert shared.total("a") == 1
        store.does_it_and_fails = False
        await until(lambda: not claims._is_away)
        assert (claims.held, shared.total("a")) == ({"a": 1}, 1)
        assert await claims.claim({"a": 2}) is None
        assert await claims.claim({"a": 2}) == "a"


async def test_while_the_store_is_away_it_is_counted_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("jararaca_ws.limits.claims._AWAY_S", 0.01)
    shared = MemoryLimits()
    store = Store(shared)
    async with started(store) as claims:
        store.is_away = True
        assert [await claims.claim({"a": 2}) for _ in range(3)] == [None, None, "a"]
        claims.release(["a"])
        assert await claims.claim({"a": 2}) is None
        await until(lambda: len(store.calls) > 4)
        store.is_away = False
        await until(lambda: shared.total("a") == 2)
        assert await claims.claim({"a": 2}) == "a"
    assert sum("counted by each instance" in record.message for record in caplog.records) == 1


async def test_while_the_store_is_away_nothing_is_granted_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jararaca_ws.limits.claims._AWAY_S", 0.01)
    store = Store(MemoryLimits())
    async with started(store, fail_open=False) as claims:
        store.is_away = True
        for _ in range(3):
            with pytest.raises(BackendUnavailable):
                await claims.claim({"a": 2})
        store.is_away = False
        await until(lambda: not claims._is_away)
        assert await claims.claim({"a": 1}) is None


async def test_a_store_that_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jararaca_ws.limits.claims._PATIENCE_S", 0.01)
    store = Store(MemoryLimits())
    async with started(store) as claims:
        store.going.clear()
        assert await claims.claim({"a": 1}) is None


async def test_the_end_leaves_nobody_waiting_and_nothing_held():
    shared = MemoryLimits()
    store = Store(shared)
    async with started(store) as claims:
        await claims.claim({"a": 5})
        store.going.clear()
        taken = asyncio.create_task(claims.claim({"a": 5}))
        await until(lambda: not claims._waiting)
        waiting = asyncio.create_task(claims.claim({"a": 5}))
        await turns()
        await claims.stop()
        for task in (taken, waiting):
            with pytest.raises(BackendUnavailable):
                await task
    assert shared.held == {}
