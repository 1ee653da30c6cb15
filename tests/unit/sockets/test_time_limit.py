from __future__ import annotations

import asyncio

import pytest

from jararaca_ws.sockets.time_limit import TimeLimit

SHORT_S = 0.01
LONG_S = 30.0


async def test_what_is_late_is_cancelled_and_times_out_and_the_task_goes_on():
    limit = TimeLimit()
    for _ in range(2):
        with pytest.raises(TimeoutError) as caught, limit(SHORT_S):
            await asyncio.sleep(LONG_S)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # it is not cancelled any more


async def test_one_timer_serves_many_pieces_and_none_is_left():
    limit = TimeLimit()
    timers: list[asyncio.TimerHandle | None] = []
    for _ in range(3):
        with limit(LONG_S):
            await asyncio.sleep(0)
            timers.append(limit._timer)
    assert timers[0] is not None
    assert timers == [timers[0]] * 3
    limit.stop()
    assert timers[0].cancelled()
    assert limit._timer is None


async def test_a_timer_of_an_earlier_piece_does_not_end_a_later_one():
    limit = TimeLimit()
    with limit(SHORT_S):
        pass
    with limit(5 * SHORT_S):
        await asyncio.sleep(2 * SHORT_S)  # the timer of the first fires in it
    with pytest.raises(TimeoutError):
        with limit(SHORT_S):
            await asyncio.sleep(LONG_S)


async def test_a_later_piece_may_have_less_time():
    limit = TimeLimit()
    with limit(LONG_S):
        pass
    with pytest.raises(TimeoutError):
        with limit(SHORT_S):
            await asyncio.sleep(LONG_S)
    limit.stop()


async def test_without_a_limit_nothing_is_armed():
    limit = TimeLimit()
    with limit(None):
        await asyncio.sleep(0)
        assert not limit.running
        assert limit._timer is None


async def test_whoever_else_cancels_the_task_is_obeyed():
    limit = TimeLimit()
    inside = asyncio.Event()

    async def work() -> None:
        with limit(SHORT_S):
            try:
                inside.set()
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # as if both came at once
                raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_an_error_of_its_own_passes():
    with pytest.raises(ValueError, match="own"):
        with TimeLimit()(SHORT_S):
            raise ValueError("own")


async def test_who_ignores_the_end_is_reported_once():
    reported = asyncio.Event()
    limit = TimeLimit(reported.set, SHORT_S)
    with limit(SHORT_S):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(LONG_S)
        assert not reported.is_set()
        await reported.wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    reported.clear()
    with limit(LONG_S):  # and the next piece begins anew
        await asyncio.sleep(2 * SHORT_S)
    assert not reported.is_set()
    limit.stop()
