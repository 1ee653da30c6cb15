"""One workload on one system: a fresh server process on one core, the load generator on the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.systems import ROOT, System
from benchmarks.workloads import Workload
from tests.servers import OwnedProcess, RedisServer, free_port
from tests.servers.process import answer

__all__ = ["cores", "pinned", "run"]

_LIMIT_S = 75
"""For one workload on one system; every one ends long before, unless something is wrong."""


def cores() -> tuple[set[int], set[int]]:
    """(of the server, of the load generator and Redis): one each, or the same where there is only one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return set(allowed[:1]), set(allowed[1:2] or allowed[:1])


@contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """Children that are started here run on these cores."""
    if not to:  # not Linux
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(system: System, workload: Workload, *, quick: bool, redis: RedisServer | None, logs: Path) -> dict[str, Any]:
    """What the load generator has found: ``results``, and ``failed``, which is None or a reason."""
    port, control_port = free_port(), free_port()
    job = {**workload.job_for(system, quick=quick), "port": port, "control_port": control_port}
    server_cores, load_cores = cores()
    environ = system.environ(port, control_port, redis.url if redis else "")
    with pinned(server_cores):
        server = OwnedProcess(
            system.command(port), log=logs / f"{system.name}-{workload.name}.log", env=environ, cwd=ROOT
        )
    try:
        with pinned(load_cores):
            server.wait_until(lambda: _up(port, control_port))
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.load"],
                cwd=ROOT,
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
            )
        if done.returncode != 0:
            return {"results": [], "failed": f"the load generator failed: {done.stderr.strip().splitlines()[-1:]}"}
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"results": [], "failed": f"not done within {_LIMIT_S} s"}
    except (RuntimeError, TimeoutError) as error:
        return {"results": [], "failed": str(error).splitlines()[0]}
    else:
        return found
    finally:
        server.kill()  # the figures are taken; an orderly end would only cost time


def _up(port: int, control_port: int) -> bool:
    return bool(answer(port, b"GET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")) and bool(
        answer(control_port, b'{"do": "cpu"}\n')
    )
