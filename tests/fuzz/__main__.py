"""A long fuzz run from the command line; see scripts/fuzz."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Rig

ROUND = 250
"""Inputs that are written to one target before it is the next one's turn."""

MAX_GROWTH_MB = 60.0
"""Of the process, from the end of its first minute on; hypothesis keeps some of what it has seen."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Write what hostile clients write, and judge.")
    parser.add_argument("--seed", type=int, help="of what is written (default: a new one)")
    parser.add_argument("--minutes", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, help="only this one (default: all, one after the other)")
    return parser.parse_args()


def _resident_mb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6


def _round(rig: Rig, name: str, number: int) -> None:
    @seed(number)
    @settings(max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def write(data: Any) -> None:
        rig.write(name, data.draw(TARGETS[name].strategy))

    write()
    rig.check_nothing_is_left()


def _run(rig: Rig, names: list[str], first: int, duration_s: float) -> tuple[str, int] | None:
    """Write until the time is over; else the target and the seed of the round that failed."""
    begun_s, settled_mb = time.monotonic(), 0.0
    number = first
    while (elapsed_s := time.monotonic() - begun_s) < duration_s:
        for name in names:
            try:
                _round(rig, name, number)
            except BaseException:  # hypothesis has exceptions of its own
                traceback.print_exc()
                return name, number
        number += 1
        resident_mb = _resident_mb()
        print(f"[{elapsed_s:6.1f}] round {number - first}, {resident_mb:.0f} MB", flush=True)
        if elapsed_s > 60:
            settled_mb = settled_mb or resident_mb
            if resident_mb > settled_mb + MAX_GROWTH_MB:
                print(f"the memory has grown by {resident_mb - settled_mb:.0f} MB")
                return names[-1], first
    return None


def main() -> int:
    """Exit code 0: nothing was found; 1: something was."""
    arguments = _arguments()
    first = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    print(f"seed {first}", flush=True)
    with Rig() as rig:
        failed = _run(rig, [arguments.target] if arguments.target else list(TARGETS), first, arguments.minutes * 60)
    for what, count in sorted(rig.counts.items()):
        print(f"{count:>8} {what}")
    if failed is not None:
        print(f"again: scripts/fuzz --seed {failed[1]} --target {failed[0]}")
        return 1
    print(f"nothing was found\nagain: scripts/fuzz --seed {first} --minutes {arguments.minutes:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
