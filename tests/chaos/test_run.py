"""A short chaos run with a fixed seed: all promises kept; and the verdict would have seen it otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import schedule
from tests.chaos.verdict import Noted, judge
from tests.faults.history import Promise

pytestmark = [pytest.mark.e2e, pytest.mark.redis, pytest.mark.rabbitmq]

SEED = 304
DURATION_S = 10.0


async def test_a_short_run_keeps_all_promises_and_a_receipt_taken_out_of_its_log_is_missed(tmp_path: Path):
    faults = schedule(SEED, DURATION_S, with_rabbitmq=True)
    report = await run(faults, DURATION_S, tmp_path, seed=SEED, clients=8, with_rabbitmq=True)
    assert report.verdict.is_good, f"{report.verdict}\nagain: scripts/chaos --seed {SEED} --minutes {DURATION_S / 60}"
    assert report.faults.total() == len(faults)
    assert report.verdict.counts["accepted"] > 100
    assert report.verdict.counts["rooms recovered"] > 0
    receipts = [
        place
        for place, event in enumerate(report.events)
        if event.noted is Noted.RECEIVED and event.promise is Promise.RECOVERABLE and event.who.startswith("recovering")
    ]
    missed = list(report.events)
    del missed[receipts[len(receipts) // 2]]
    assert not judge(missed).is_good
