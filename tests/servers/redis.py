"""A private redis-server: up in about 55 ms, back on its port 20 ms after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import OwnedProcess, ServerUnavailable, answer, free_port


def server_binary() -> str:
    """Where redis-server is.

    Raises:
        ServerUnavailable: it is not installed.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise ServerUnavailable("redis-server", "not on PATH (apt-get install redis-server)")
    return binary


class RedisServer:
    """One redis-server on 127.0.0.1, without a password.

    Args:
        directory: for its log and, with ``appendonly``, its data; made when missing.
        port: None takes a free one. It stays the same through every restart.
        appendonly: keep the data (streams, keys) through a restart; otherwise it comes back empty.
        extra_args: further options of redis-server, for example ``("--maxmemory", "1mb")``; may be changed while it
            is stopped.

    Raises:
        ServerUnavailable: redis-server is not installed.
    """

    def __init__(
        self, directory: Path, port: int | None = None, *, appendonly: bool = False, extra_args: Sequence[str] = ()
    ) -> None:
        binary = server_binary()
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.directory = directory
        self.extra_args = extra_args
        self._log = directory / "redis.log"
        self._argv = [
            *(binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory), "--daemonize", "no"),
            *("--save", "", "--appendonly", "yes" if appendonly else "no", "--appendfsync", "always"),
        ]
        self._process: OwnedProcess | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> OwnedProcess:
        """The running server.

        Raises:
            RuntimeError: it is stopped.
        """
        if self._process is None:
            raise RuntimeError("this redis-server is stopped: call start() first")
        return self._process

    def start(self) -> None:
        """Start it and wait until it answers a PING. Does nothing when it runs."""
        if self._process is None:
            self._process = OwnedProcess([*self._argv, *self.extra_args], log=self._log)
            self._process.wait_until(lambda: answer(self.port, b"PING\r\n") == b"+PONG\r\n")

    def stop(self) -> None:
        """SIGTERM, and wait for its end. Safe to call twice."""
        if self._process is not None:
            self._process.terminate()
            self._process = None

    def kill(self) -> None:
        """SIGKILL: clients see their connections break."""
        self.process.kill()
        self._process = None

    def restart(self) -> None:
        """SIGKILL where it runs, then start on the same port."""
        if self._process is not None:
            self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as when the network swallows everything."""
        self.process.pause()

    def resume(self) -> None:
        """SIGCONT: all that was sent meanwhile is answered now."""
        self.process.resume()
