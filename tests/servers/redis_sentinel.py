"""A master, a replica, and one Sentinel that decides alone and soon."""

from __future__ import annotations

from pathlib import Path

from tests.servers.process import OwnedProcess, answer, free_port
from tests.servers.redis import RedisServer, server_binary

SERVICE = "chat"


class SentinelSetup:
    """Two redis-servers and a Sentinel that takes a master for dead after half a second.

    Raises:
        ServerUnavailable: redis-server is not installed.
    """

    def __init__(self, directory: Path) -> None:
        at_once = ("--repl-diskless-sync-delay", "0")
        self.master = RedisServer(directory / "one", extra_args=at_once)
        self.replica = RedisServer(
            directory / "two", extra_args=(*at_once, "--replicaof", f"127.0.0.1 {self.master.port}")
        )
        self.port = free_port()
        self._directory = directory
        self._sentinel: OwnedProcess | None = None

    def start(self) -> None:
        """Start all three and wait until the Sentinel knows a replica that is in step."""
        self.master.start()
        self.replica.start()
        # Before the Sentinel looks for the first time: it looks again only after ten seconds.
        self.replica.process.wait_until(lambda: b"master_link_status:up" in self._replication())
        config = self._directory / "sentinel.conf"  # it writes its state there
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 3000\n"
        )
        self._sentinel = OwnedProcess([server_binary(), config, "--sentinel"], log=self._directory / "sentinel.log")
        self._sentinel.wait_until(lambda: b"slaves=1" in answer(self.port, b"INFO sentinel\r\n", 1000))

    def has_failed_over(self) -> bool:
        """Whether the replica is the master now."""
        return b"role:master" in self._replication()

    def _replication(self) -> bytes:
        return answer(self.replica.port, b"INFO replication\r\n", 1000)

    def stop(self) -> None:
        if self._sentinel is not None:
            self._sentinel.terminate()
        self.master.stop()
        self.replica.stop()
