from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from jararaca_ws.supervision import Backoff, Supervised
from tests.unit.played import turns, until

AT_ONCE = Backoff(first_s=0.0, max_s=0.0)


def test_delays_grow_to_the_maximum_and_are_never_near_zero():
    delays = list(itertools.islice(Backoff(first_s=1, factor=2, max_s=10).delays(), 50))
    bounds = [1, 2, 4, 8] + [10] * 46
    assert all(bound / 10 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    assert len(set(delays)) > 40, "without jitter all instances come back in one moment"


async def test_f48_work_that_raises_is_run_again_counted_and_logged(caplog: pytest.LogCaptureFixture):
    runs = 0

    async def work(task: Supervised) -> None:
        nonlocal runs
        runs += 1
        if runs <= 3:
            raise RuntimeError(f"failure {runs}")
        task.mark_healthy()
        await asyncio.Event().wait()

    task = Supervised("the work", work, AT_ONCE)
    with caplog.at_level(logging.WARNING, "jararaca_ws"):
        task.start()
        await until(lambda: task.healthy)
    assert (runs, task.restarts) == (4, 3)
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [
        "RuntimeError: failure 1",
        "RuntimeError: failure 2",
        "RuntimeError: failure 3",
    ]
    await task.stop()
    assert not task.healthy


async def test_work_that_returns_is_run_again():
    async def work(task: Supervised) -> None: ...

    task = Supervised("short", work, AT_ONCE)
    task.start()
    await until(lambda: task.restarts >= 3)
    await task.stop()


async def test_f48_work_that_ends_with_a_cancellation_that_nobody_asked_for_is_run_again():
    """A library that cancels a future of its own must not end the supervision, least of all with a green light."""
    runs = 0

    async def work(task: Supervised) -> None:
        nonlocal runs
        runs += 1
        task.mark_healthy()
        if runs == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        await asyncio.Event().wait()

    task = Supervised("cancelled from within", work, AT_ONCE)
    task.start()
    try:
        await turns()
        assert (runs, task.restarts) == (2, 1)
        assert task.healthy
    finally:
        await task.stop()


async def test_readiness_is_red_from_the_failure_on():
    fail = asyncio.Event()

    async def work(task: Supervised) -> None:
        task.mark_healthy()
        await fail.wait()
        raise RuntimeError

    task = Supervised("work", work, Backoff(first_s=60, max_s=60))
    task.start()
    await until(lambda: task.healthy)
    fail.set()
    await until(lambda: task.restarts == 1)
    assert not task.healthy
    await task.stop()


async def test_being_healthy_makes_the_next_delay_short_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("jararaca_ws.supervision.random.uniform", lambda low, high: high)

    async def work(task: Supervised) -> None:
        if task.restarts == 3:
            task.mark_healthy()
        raise RuntimeError

    task = Supervised("work", work, Backoff(first_s=0.001, factor=2, max_s=60))
    with caplog.at_level(logging.WARNING, "jararaca_ws"):
        task.start()
        await until(lambda: task.restarts >= 5)
        await task.stop()
    delays = [record.args[3] for record in caplog.records if isinstance(record.args, tuple)]
    assert delays[:5] == [0.001, 0.002, 0.004, 0.001, 0.002]


async def test_stop_cancels_and_awaits():
    ended = False

    async def work(task: Supervised) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    before = asyncio.all_tasks()
    task = Supervised("work", work)
    task.start()
    task.start()
    await turns()
    assert len(asyncio.all_tasks() - before) == 1, "a second start does nothing"
    await task.stop()
    assert ended
    assert asyncio.all_tasks() == before
    await task.stop()


async def test_it_can_be_started_again_after_stop():
    runs = 0

    async def work(task: Supervised) -> None:
        nonlocal runs
        runs += 1
        await asyncio.Event().wait()

    task = Supervised("work", work)
    for expected in (1, 2):
        task.start()
        await until(lambda expected=expected: runs == expected)
        await task.stop()
    assert task.restarts == 0
