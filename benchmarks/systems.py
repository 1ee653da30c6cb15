"""The systems side by side: what each is, how it is installed and how it is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["ROOT", "SYSTEMS", "System", "Unavailable"]

ROOT = Path(__file__).resolve().parents[1]
_ENVIRONMENTS = ROOT / ".venv" / "bench"


class Unavailable(Exception):
    """A system that cannot be had here; the text is the reason in the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One column of the comparison.

    Attributes:
        name: on the command line, and in results.json.
        environment: its virtual environment, shared by the variants of one peer; None is our own.
        requirements: what pip (or npm) installs there.
        versions: the distributions whose versions are reported.
        redis: whether its messages go through Redis.
        both_backends: whether it is in the list twice, once with messages that stay in memory.
        too_slow_for: workloads that it was seen not to finish, and what was seen; they are not tried again.
        options: of its command line.
        only: the workloads that it is for; empty: all.
        own_rooms: whether its rooms are a dict of the benchmark's, not its own.
        path, after_upgrade: see load.Job.
        uvicorn: whether it is ours and runs under plain uvicorn.
    """

    name: str
    title: str
    server: str
    environment: str | None = None
    requirements: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    redis: bool = False
    both_backends: bool = False
    options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    own_rooms: bool = False
    too_slow_for: tuple[tuple[str, str], ...] = ()
    path: str = "/ws?room={room}"
    after_upgrade: str = ""
    uvicorn: bool = False

    @property
    def is_ours(self) -> bool:
        return self.server == "ours"

    @property
    def is_node(self) -> bool:
        return self.server.endswith(".mjs")

    @property
    def directory(self) -> Path:
        """Where it is installed."""
        return ROOT / ".venv" if self.environment is None else _ENVIRONMENTS / self.environment

    def install(self) -> None:
        """Make its environment, unless that has been done for the same requirements.

        Raises:
            Unavailable: it cannot be installed here.
        """
        if self.environment is None:
            return
        stamp = self.directory / "installed"
        wanted = "\n".join(self.requirements)
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        for command in self._install_commands():
            done = subprocess.run(command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if done.returncode != 0:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise Unavailable(f"could not be installed: {' '.join(last)}")
        stamp.write_text(wanted)

    def _install_commands(self) -> list[list[str]]:
        if self.is_node:
            if shutil.which("node") is None or shutil.which("npm") is None:
                raise Unavailable("no Node.js with npm on PATH")
            return [["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", ".", *self.requirements]]
        return [
            [sys.executable, "-m", "venv", "."],
            ["bin/python", "-m", "pip", "install", "-q", "--only-binary=:all:", *self.requirements],
        ]

    def command(self, port: int) -> list[str]:
        if self.is_node:
            return ["node", "--expose-gc", str(ROOT / "benchmarks" / "servers" / self.server)]
        if self.uvicorn:
            where = ("--app-dir", str(ROOT), "--port", str(port), "--log-level", "warning", *self.options)
            return [sys.executable, "-m", "uvicorn", *where, "--factory", "benchmarks.servers.ours:http_server"]
        if self.is_ours:
            target = ("--app-dir", str(ROOT), "benchmarks.servers.ours:app")
            command = str(Path(sys.executable).with_name("jararaca-ws"))
            return [command, "serve", *target, "--port", str(port), "--log-level", "warning", *self.options]
        return [str(self._python), "-m", f"benchmarks.servers.{self.server}"]

    def environ(self, port: int, control_port: int, redis_url: str) -> dict[str, str]:
        return {
            **os.environ,
            "BENCH_PORT": str(port),
            "BENCH_CONTROL_PORT": str(control_port),
            "BENCH_REDIS_URL": redis_url if self.redis else "",
            "BENCH_NODE_MODULES": str(self.directory / "node_modules"),
        }

    def installed_versions(self) -> dict[str, str]:
        if self.is_node:
            package = self.directory / "node_modules" / "ws" / "package.json"
            node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
            return {"node": node.removeprefix("v"), "ws": json.loads(package.read_text())["version"]}
        script = (
            "import sys, json, platform; from importlib.metadata import version;"
            "print(json.dumps({'python': platform.python_version()} | {n: version(n) for n in sys.argv[1:]}))"
        )
        done = subprocess.run([self._python, "-c", script, *self.versions], capture_output=True, text=True, check=True)
        versions: dict[str, str] = json.loads(done.stdout)
        return versions

    @property
    def _python(self) -> Path:
        return Path(sys.executable) if self.environment is None else self.directory / "bin" / "python"


_UVICORN = ("uvicorn", "websockets", "uvloop")
_LITESTAR = ("litestar>=2,<3", "redis", "hiredis", "uvicorn[standard]")
_SOCKETIO = ("python-socketio>=5,<6", "redis", "hiredis", "uvicorn[standard]")
_CHANNELS = ("channels>=4,<5", "channels-redis>=4,<5", "hiredis", "uvicorn[standard]")

_OURS = System(
    name="ours",
    title="jararaca_ws, memory",
    server="ours",
    versions=("jararaca-ws", "fastapi", "starlette", "redis", "pydantic", *_UVICORN),
)
_LITESTAR_MEMORY = System(
    name="litestar",
    title="Litestar channels, memory",
    server="litestar",
    environment="litestar",
    requirements=_LITESTAR,
    versions=("litestar", "redis", *_UVICORN),
    both_backends=True,
)
_SOCKETIO_MEMORY = System(
    name="socketio",
    title="python-socketio, memory",
    server="socketio",
    environment="socketio",
    requirements=_SOCKETIO,
    versions=("python-socketio", "redis", *_UVICORN),
    both_backends=True,
    path="/socket.io/?EIO=4&transport=websocket&room={room}",
    after_upgrade="40",
)
_CHANNELS_MEMORY = System(
    name="channels",
    title="Django Channels, memory",
    server="channels",
    environment="channels",
    requirements=_CHANNELS,
    versions=("channels", "channels-redis", "django", "redis", *_UVICORN),
    both_backends=True,
    too_slow_for=(
        ("fanout-5000", "no frame within 5 s of the first send"),
        ("idle", "not done within 90 s"),
        ("rooms", "not done within 90 s"),
    ),
)


def _through_redis(system: System) -> System:
    return replace(system, name=f"{system.name}-redis", title=system.title.replace(", memory", ", Redis"), redis=True)


SYSTEMS = [
    _OURS,
    _through_redis(_OURS),
    replace(
        _OURS,
        name="ours-deflate",
        title="jararaca_ws, memory, --ws-per-message-deflate",
        options=("--ws-per-message-deflate",),
        only=("deflate",),
    ),
    replace(
        _OURS,
        name="ours-uvicorn",
        title="jararaca_ws, memory, under plain uvicorn",
        options=("--ws", "websockets-sansio"),
        only=("inbound",),
        uvicorn=True,
    ),
    System(
        name="starlette",
        title="loop over send_text (FastAPI)",
        server="starlette",
        versions=("fastapi", "starlette", *_UVICORN),
        own_rooms=True,
    ),
    System(
        name="jararaca",
        title="Jararaca framework, Redis",
        server="jararaca",
        environment="jararaca",
        requirements=("jararaca>=0.5,<0.6", "hiredis", "httptools"),
        versions=("jararaca", "fastapi", "redis", *_UVICORN),
        redis=True,
        path="/bench/ws?room={room}",
    ),
    _LITESTAR_MEMORY,
    _through_redis(_LITESTAR_MEMORY),
    _SOCKETIO_MEMORY,
    _through_redis(_SOCKETIO_MEMORY),
    _CHANNELS_MEMORY,
    _through_redis(_CHANNELS_MEMORY),
    System(
        name="picows",
        title="picows (no framework: the floor)",
        server="picows",
        environment="picows",
        requirements=("picows", "uvloop"),
        versions=("picows", "aiofastnet", "uvloop"),
        own_rooms=True,
    ),
    System(
        name="node-ws",
        title="Node.js ws",
        server="node_ws.mjs",
        environment="node-ws",
        requirements=("ws@8",),
        own_rooms=True,
    ),
]
