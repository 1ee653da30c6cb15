"""The servers, instances, worker and links of a chaos run, what can be done to them, and who starts them again."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from jararaca_ws.testing import FaultProxy
from tests.chaos.schedule import INSTANCES, Fault, What
from tests.chaos.verdict import Log
from tests.servers import OwnedProcess, RabbitMQServer, RedisServer, free_port
from tests.servers.process import answer

__all__ = ["Fleet"]

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("jararaca-ws")

_POLL_S = 0.02
_END_S = 20.0
"""How long a process may take to end after SIGTERM."""
_RESTART_S = 0.3
"""Before a process that has ended by itself is started again."""


class Member:
    """An instance or the worker: a process that is started again whenever it has ended."""

    def __init__(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str], ready: str, log: Log) -> None:
        self.name = name
        self._argv = argv
        self._env = env
        # What it writes when it is up.
        self._ready = ready
        self._log = log
        self._process: OwnedProcess | None = None
        self._logs: list[Path] = []
        # Whether its end is our doing.
        self._told_to_end = False

    @property
    def up(self) -> bool:
        return self._process is not None and self._process.running and self._ready in self._process.output()

    def start(self, directory: Path) -> None:
        self._logs.append(directory / f"{self.name}-{len(self._logs) + 1}.log")
        self._told_to_end = False
        self._process = OwnedProcess([COMMAND, *self._argv], log=self._logs[-1], env=self._env)

    async def keep(self, directory: Path) -> None:
        """Start it again whenever it has ended by itself: as it may while it starts and a server is away."""
        while True:
            process = self._process
            if process is not None and not process.running and not self._told_to_end:
                if self._ready in process.output():
                    self._log.wrong(f"{self.name} ended by itself with {process.returncode}: {process.log.name}")
                await asyncio.sleep(_RESTART_S)
                self.start(directory)
            await asyncio.sleep(_POLL_S)

    async def suffer(self, fault: Fault, directory: Path) -> None:
        process = self._process
        assert process is not None
        if fault.what is What.FREEZE:
            process.pause()
            await asyncio.sleep(fault.for_s)
            process.resume()
            return
        self._told_to_end = True
        if fault.what is What.TERMINATE and process.running:
            process.signal_terminate()
            await self._ended(process)
        await asyncio.to_thread(process.kill)
        await asyncio.sleep(fault.for_s)
        self.start(directory)

    async def _ended(self, process: OwnedProcess) -> None:
        try:
            async with asyncio.timeout(_END_S):
                while process.running:  # noqa: ASYNC110  # a child process has no event
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self._log.wrong(f"{self.name} did not end within {_END_S:g} s of SIGTERM: {process.log.name}")

    def stop(self) -> None:
        """End it, and look for what must not be in its logs."""
        self._told_to_end = True
        if self._process is not None:
            self._process.terminate()
        for path in self._logs:
            if found := re.search(r"never retrieved|was destroyed but|never awaited", path.read_text(errors="replace")):
                self._log.wrong(f"{path.name} has {found.group()!r}")


class Fleet:
    """Redis, RabbitMQ, two instances and a worker; a proxy in every link between them, and before each instance."""

    def __init__(self, directory: Path, log: Log, *, with_rabbitmq: bool) -> None:
        self._directory = directory
        self._log = log
        # Redis answers when it has written to the disk: what was accepted survives a SIGKILL.
        self.redis = RedisServer(directory / "redis", appendonly=True)
        self.rabbitmq = RabbitMQServer(directory / "rabbitmq") if with_rabbitmq else None
        self.links: dict[str, FaultProxy] = {}
        self.members: dict[str, Member] = {}
        self.suffered: Counter[str] = Counter()
        # A target that takes long to end or to start is repaired before it suffers again.
        self._suffering: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stack = AsyncExitStack()

    @property
    def ports(self) -> dict[str, int]:
        """Where clients and senders find each instance."""
        return {instance: self.links[f"clients-{instance}"].port for instance in INSTANCES}

    @property
    def up(self) -> bool:
        return all(member.up for member in self.members.values())

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        servers: list[RedisServer | RabbitMQServer] = [self.redis]
        if self.rabbitmq is not None:
            servers.append(self.rabbitmq)
        for server in servers:
            self._stack.push_async_callback(asyncio.to_thread, server.stop)
            await asyncio.to_thread(server.start)
        for instance in INSTANCES:
            port = free_port()
            self.links[f"clients-{instance}"] = await self._stack.enter_async_context(FaultProxy(port))
            # Longer than any request takes while a server is away: uvicorn answers 500 to those that it cuts short.
            options = ("--port", str(port), "--drain-window", "1", "--graceful-timeout", "12")
            await self._add(instance, "serve", options, ready="Application startup complete")
        if self.rabbitmq is not None:
            await self._add("worker", "worker", ("--grace", "5"), ready="chaos consumes with")
        await self.until_up()

    async def _add(self, name: str, command: str, options: Sequence[str], *, ready: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "CHAOS_AMQP_URL": ""}
        env["CHAOS_REDIS_URL"] = f"redis://127.0.0.1:{await self._link(f'{name}-redis', self.redis.port)}/0"
        if self.rabbitmq is not None:
            port = await self._link(f"{name}-rabbitmq", self.rabbitmq.port)
            env["CHAOS_AMQP_URL"] = f"amqp://guest:guest@127.0.0.1:{port}/"
        member = self.members[name] = Member(
            name, [command, "tests.chaos.app:app", "--app-dir", ROOT, *options], env, ready, self._log
        )
        member.start(self._directory)
        self._stack.push_async_callback(asyncio.to_thread, member.stop)

    async def _link(self, name: str, port: int) -> int:
        self.links[name] = await self._stack.enter_async_context(FaultProxy(port))
        return self.links[name].port

    async def keep(self) -> None:
        """Start again what ends, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for member in self.members.values():
                tasks.create_task(member.keep(self._directory))

    async def until_up(self, timeout_s: float = 60.0) -> None:
        """Raises TimeoutError where somebody does not come up."""
        async with asyncio.timeout(timeout_s):
            while not self.up:  # noqa: ASYNC110  # child processes have no event
                await asyncio.sleep(_POLL_S)

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    async def suffer(self, fault: Fault) -> None:
        """Let it happen, and repair it."""
        kind = fault.target.split("-")
        self.suffered[f"{fault.what.value} of {'a link' if len(kind) > 1 else fault.target}"] += 1
        async with self._suffering[fault.target]:
            if fault.target in self.links:
                await _break_link(self.links[fault.target], fault)
            elif fault.target in self.members:
                await self.members[fault.target].suffer(fault, self._directory)
            else:
                server = self.redis if fault.target == "redis" else self.rabbitmq
                assert server is not None
                await _break_server(server, fault)


async def _break_link(link: FaultProxy, fault: Fault) -> None:
    {
        What.CUT: link.cut,
        What.RESET: link.reset,
        What.BLACKHOLE: link.blackhole,
        What.DROP_REPLIES: link.drop_replies,
    }[fault.what]()
    await asyncio.sleep(fault.for_s)
    link.heal()


async def _break_server(server: RedisServer | RabbitMQServer, fault: Fault) -> None:
    if fault.what is What.FREEZE:
        server.pause()
        await asyncio.sleep(fault.for_s)
        server.resume()
    elif fault.what in (What.KILL, What.TERMINATE):
        await asyncio.to_thread(server.kill if fault.what is What.KILL else server.stop)
        await asyncio.sleep(fault.for_s)
        await asyncio.to_thread(server.start)
    else:
        await asyncio.to_thread(answer, server.port, f"{fault.what.value}\r\n".encode())
