"""What a run says where a server cannot be had: a run of its own, with nothing on its PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run_without_servers(*, live: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": "", "JARARACA_WS_LIVE": "1" if live else "0"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/servers/test_redis.py"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize(("live", "code", "fate"), [(False, 0, "SKIPPED"), (True, 1, "FAILED, JARARACA_WS_LIVE=1")])
def test_the_last_line_names_the_server_and_the_reason(live: bool, code: int, fate: str) -> None:
    done = run_without_servers(live=live)
    assert done.returncode == code, done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == f"{fate}: 3 tests for want of redis-server: not on PATH (apt-get install redis-server)"
