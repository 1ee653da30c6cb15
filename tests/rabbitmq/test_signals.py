"""A worker of its own process, stopped with a signal while a handler runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.rabbitmq.applications import Broker, Pack
from tests.servers import OwnedProcess

pytestmark = [pytest.mark.rabbitmq, pytest.mark.e2e]

COMMAND = Path(sys.executable).with_name("jararaca-ws")
ROOT = Path(__file__).parents[2]
QUEUE = "task.orders.pack"


@asynccontextmanager
async def slow_worker(broker: Broker, log: Path, handler_s: float, grace_s: int) -> AsyncIterator[OwnedProcess]:
    """A worker that is at the first of three messages."""
    process = OwnedProcess(
        [COMMAND, "worker", "--app-dir", ROOT, "tests.rabbitmq.slow:app", "--grace", str(grace_s)],
        log=log,
        env={**os.environ, "SLOW_S": str(handler_s), "SLOW_AMQP_URL": broker.url, "SLOW_EXCHANGE": broker.exchange},
    )
    try:
        await asyncio.to_thread(process.wait_until, lambda: "slow consumes with" in process.output())
        async with broker.script() as bus:
            for number in range(3):
                await bus.publish(Pack(number=number))
        await asyncio.to_thread(process.wait_until, lambda: "begun 0" in process.output())
        yield process
    finally:
        process.kill()


async def waiting(broker: Broker, count: int) -> None:
    async with asyncio.timeout(5):
        while await broker.count(QUEUE) != count:  # noqa: ASYNC110  # the broker knows
            await asyncio.sleep(0.02)


async def test_f38_a_worker_that_is_terminated_finishes_what_it_is_at(broker: Broker, tmp_path: Path):
    async with slow_worker(broker, tmp_path / "worker.log", handler_s=0.5, grace_s=20) as process:
        process.signal_terminate()
        assert await asyncio.to_thread(process.wait) == 0, process.output()
        assert "done 0" in process.output()
        assert "begun 1" not in process.output()
    await waiting(broker, 2)


@pytest.mark.parametrize("signals", ["one", "two", "kill"])
async def test_f38_what_a_worker_cannot_finish_goes_back(broker: Broker, tmp_path: Path, signals: str):
    grace_s = 1 if signals == "one" else 60
    async with slow_worker(broker, tmp_path / "worker.log", handler_s=60, grace_s=grace_s) as process:
        if signals == "kill":
            process.kill()
        else:
            process.signal_terminate()
            if signals == "two":
                await asyncio.to_thread(process.wait_until, lambda: "finishes what runs" in process.output())
                process.signal_terminate()
            await asyncio.to_thread(process.wait, 15)
        assert "done" not in process.output()
        assert "begun 1" not in process.output()
    await waiting(broker, 3)
