from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.servers import OwnedProcess, free_port

# A parent that ignores SIGTERM, and a child of it.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    # Z: dead, and its new parent has not taken note yet.
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def python(code: str, log: Path) -> OwnedProcess:
    return OwnedProcess([sys.executable, "-c", code], log=log)


def test_terminate_kills_what_does_not_go_by_itself_with_all_that_it_started(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path / "log")
    child = int(process.wait_until(process.output).split()[1])

    assert process.terminate(timeout=0.2) == -9
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    deadline = time.monotonic() + 5
    while alive(child):  # nobody can wait for a grandchild: the kernel ends it in its own time
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.kill() == -9  # a second time harms nobody


def test_a_paused_process_can_be_terminated(tmp_path: Path) -> None:
    with python("import time; print('up', flush=True); time.sleep(600)", tmp_path / "log") as process:
        process.wait_until(process.output)
        process.pause()
    assert process.returncode == -15


def test_wait_until_tells_that_the_process_ended_and_what_it_wrote(tmp_path: Path) -> None:
    process = python("import sys; sys.exit('no such file')", tmp_path / "log")
    with pytest.raises(RuntimeError, match="ended with 1:\nno such file"):
        process.wait_until(lambda: False)
    process.kill()


def test_wait_until_gives_up(tmp_path: Path) -> None:
    with (
        python("import time; time.sleep(600)", tmp_path / "log") as process,
        pytest.raises(TimeoutError, match=r"not there after 0\.05 s"),
    ):
        process.wait_until(lambda: False, timeout=0.05)


def test_free_ports_are_never_the_same() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
