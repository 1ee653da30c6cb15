"""A private RabbitMQ node with an epmd of its own: 4.5 s to the first AMQP answer, so one for a whole test run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.owned import OwnedServer
from tests.servers.process import OwnedProcess, ServerUnavailable, answer, free_port

# The commands in /usr/sbin switch to the user `rabbitmq`; these are what they run.
_INSTALLED = Path("/usr/lib/rabbitmq/lib")
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"


def _commands() -> Path:
    found = sorted(_INSTALLED.glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if not found or shutil.which("epmd") is None:
        raise ServerUnavailable("rabbitmq-server", f"not under {_INSTALLED} (apt-get install rabbitmq-server)")
    return found[-1].parent


class RabbitMQServer(OwnedServer):
    """One RabbitMQ node on 127.0.0.1, user and password ``guest``.

    Durable queues and persistent messages survive a kill. The calls block for seconds: in an async test use
    ``await asyncio.to_thread(server.restart)``.

    Args:
        directory: for its configuration, log and data; made when missing.

    Raises:
        ServerUnavailable: rabbitmq-server is not installed.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__("RabbitMQ node")
        self._commands = _commands()
        self._directory = directory
        self.port = free_port()
        self._epmd_port = free_port()
        self._environment = self._lay_out()
        self._epmd: OwnedProcess | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def _launch(self) -> OwnedProcess:
        if self._epmd is None:
            # Not left to the node, whose epmd would outlive it, and the tests.
            argv = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = OwnedProcess(argv, log=self._directory / "epmd.log")
            self._epmd.wait_until(lambda: answer(self._epmd_port, b"\x00\x01n"))
        argv = [str(self._commands / "rabbitmq-server")]
        return OwnedProcess(argv, log=self._directory / "rabbitmq.log", env=self._environment)

    def _answers(self) -> bool:
        return answer(self.port, _AMQP_HEADER).startswith(b"\x01")  # a method frame, Connection.Start

    def stop(self) -> None:
        """End the node in an orderly way, then its epmd. Safe to call twice."""
        super().stop()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl (about 1.5 s) and return what it prints.

        For example ``ctl("close_all_connections", "test")``, ``ctl("list_queues", "name", "messages")``.

        Raises:
            RuntimeError: it failed; holds its output.
        """
        argv = [str(self._commands / "rabbitmqctl"), "--quiet", *args]
        done = subprocess.run(argv, env=self._environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _lay_out(self) -> Mapping[str, str]:
        """Make the directory and the configuration; the environment of the node and of rabbitmqctl."""
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True)
        config, plugins, cookie = directory / "rabbitmq.conf", directory / "enabled_plugins", "jararaca-ws-tests"
        # A disk or memory alarm of a busy machine would block every publish.
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 1MB\nvm_memory_high_watermark.relative = 0.9\n"
        )
        plugins.write_text("[].\n")
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"jararaca-ws-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 1:1 +sbwt none -setcookie {cookie}",
            "RABBITMQ_ERLANG_COOKIE": cookie,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
