"""A short fuzz run, the same each time; ``scripts/fuzz`` is the long one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Rig

EXAMPLES = {"frames": 80, "handshakes": 100}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_whatever_is_written(name: str, rig: Rig):
    @settings(
        max_examples=EXAMPLES.get(name, 120),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def write(data: Any) -> None:
        rig.write(name, data.draw(TARGETS[name].strategy))

    write()
    rig.check_nothing_is_left()
