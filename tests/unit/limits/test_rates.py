from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.limits.handshakes import HandshakePace
from jararaca_ws.limits.rates import Buckets, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_one_for_each_interval():
    clock = Clock()
    buckets, rate = Buckets(clock=clock), Rate(2, timedelta(seconds=1), burst=3)
    assert [buckets.take("a", rate) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    clock.now += 0.25
    assert buckets.take("a", rate) == pytest.approx(0.25)
    clock.now += 0.25
    assert [buckets.take("a", rate), buckets.take("a", rate)] == [0, pytest.approx(0.5)]
    clock.now += 100
    assert [buckets.take("a", rate) for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


def test_each_key_has_a_bucket_of_its_own():
    buckets, rate = Buckets(clock=Clock()), Rate(1, timedelta(minutes=1))
    assert [buckets.take(key, rate) for key in "abab"] == [0, 0, pytest.approx(60), pytest.approx(60)]


def test_full_buckets_take_no_memory():
    clock = Clock()
    buckets, rate = Buckets(clock=clock), Rate(1000)
    for n in range(100_000):
        clock.now += 0.001
        assert not buckets.take(f"{n}", rate)
    assert len(buckets) <= 1025


def test_the_number_of_buckets_is_bounded_and_the_emptiest_stay():
    clock = Clock()
    buckets, slow = Buckets(max_keys=2000, clock=clock), Rate(10, timedelta(hours=1))
    while not buckets.take("greedy", slow):
        pass
    for n in range(10_000):
        buckets.take(f"{n}", slow)
    assert len(buckets) <= 2001
    assert buckets.take("greedy", slow) > 0


@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.floats(0, 0.5), max_size=60))
def test_never_more_than_the_burst_and_the_rate(count: int, burst: int, steps: list[float]):
    clock = Clock()
    buckets, rate = Buckets(clock=clock), Rate(count, timedelta(seconds=1), burst)
    taken, start = 0, clock.now
    for step in steps:
        clock.now += step
        wait_s = buckets.take("a", rate)
        taken += not wait_s
        assert taken <= burst + (clock.now - start) * count + 1e-3
        if wait_s:
            clock.now += wait_s
            assert not buckets.take("a", rate)
            taken += 1


@pytest.mark.parametrize(
    "fields",
    [{"count": 0}, {"count": 1.5}, {"count": 1, "burst": 0}, {"count": 1, "per": timedelta(0)}, {"count": "1"}],
)
def test_what_is_no_rate(fields: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="cannot be"):
        Rate(**fields)


def test_f44_each_refused_handshake_is_told_a_time_of_its_own():
    clock = Clock()
    pace = HandshakePace(Rate(100, timedelta(seconds=1), burst=200), clock)
    assert [pace.take() for _ in range(200)] == [0] * 200
    told = [pace.take() for _ in range(1000)]
    assert told == pytest.approx([(n + 1) / 100 for n in range(1000)])
    # All who come back when they were told are let in.
    for wait_s in told:
        clock.now = 1000 + wait_s + 0.001
        assert pace.take() == 0


def test_nobody_is_told_to_wait_for_long():
    pace = HandshakePace(Rate(1), Clock())
    told = [pace.take() for _ in range(1000)]
    assert max(told) <= 30
    assert all(15 <= wait_s <= 30 for wait_s in told[40:])
