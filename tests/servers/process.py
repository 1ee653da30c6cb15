"""A child process that a test owns: it and its descendants are signalled by process id and gone at the end."""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

_T = TypeVar("_T")

_handed_out: set[int] = set()


class ServerUnavailable(Exception):
    """A server (or the browser) that a test needs is not installed here.

    The suite's conftest turns it into a skip, or, with ``JARARACA_WS_LIVE=1``, into a failure.
    """

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(server, reason)
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.server}: {self.reason}"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, never the same twice in one run.

    It lies below the kernel's range for outgoing connections: a client that reconnects to a dead port out of that
    range sooner or later connects to itself, and the restarted server finds its port taken.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        if port not in _handed_out and not _listening(port):
            _handed_out.add(port)
            return port


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def answer(port: int, question: bytes, length: int = 64) -> bytes:
    """What a server on 127.0.0.1 first answers to ``question``; nothing while it is not up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(length)
    except OSError:
        return b""


class OwnedProcess:
    """A child in a process group of its own. Its output goes to a log file.

    The calls block: in an async test use ``await asyncio.to_thread(process.terminate)`` and the like where the event
    loop must go on meanwhile (`kill`, `pause` and `resume` take no time).
    """

    def __init__(
        self, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.log = log
        self._ended = False
        with log.open("ab") as output:
            # start_new_session: the group's id is the child's, so one signal reaches what it starts, and a Ctrl-C in
            # the terminal reaches pytest only.
            self._child = subprocess.Popen(
                [str(word) for word in argv],
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; ``-N`` where signal N ended it."""
        return self._child.poll()

    @property
    def running(self) -> bool:
        return self.returncode is None

    def output(self) -> str:
        """All that it has written so far, both streams."""
        return self.log.read_text(errors="replace")

    def wait_until(self, check: Callable[[], _T], timeout: float = 30) -> _T:
        """Poll ``check`` until it returns something true, which is returned.

        Raises:
            RuntimeError: the process has ended.
            TimeoutError: ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            if value := check():
                return value
            if not self.running:
                raise RuntimeError(f"process {self.pid} ended with {self.returncode}:\n{self.output()[-4000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} is not there after {timeout} s:\n{self.output()[-4000:]}")
            time.sleep(0.01)

    def wait(self, timeout: float = 30) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        return self._child.wait(timeout)

    def interrupt(self) -> None:
        """SIGINT to the process itself; does not wait."""
        self._child.send_signal(signal.SIGINT)

    def signal_terminate(self) -> None:
        """SIGTERM to the process itself; does not wait."""
        self._child.terminate()

    def terminate(self, timeout: float = 15) -> int:
        """SIGTERM to the process itself, then wait; what is left after ``timeout`` seconds is killed."""
        if not self._ended:
            self.resume()
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the whole group, also when its first process has ended already. Returns the exit code."""
        self._signal_group(signal.SIGKILL)
        self._ended = True
        atexit.unregister(self.kill)
        return self._child.wait()

    def pause(self) -> None:
        """SIGSTOP to the whole group: its sockets stay open and fall silent."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the whole group."""
        self._signal_group(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()

    def _signal_group(self, signum: int) -> None:
        # After the kill the id may belong to somebody else.
        if not self._ended:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signum)
