"""P3: from the bus to the browser once, wherever the worker dies; servers and workers are real."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messagebus import RabbitMQMessageBus
from tests.rabbitmq import crashing
from tests.rabbitmq.applications import Broker, Pack
from tests.servers import RedisServer
from tests.unit.histories import frames
from tests.unit.played import serving, until, until_closed

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis]


@asynccontextmanager
async def worker(broker: Broker, redis: RedisServer, point: str) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = (sys.executable, "-m", crashing.__name__, broker.url, broker.exchange, redis.url, point)
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def publish(bus: RabbitMQMessageBus, number: int) -> None:
    async with asyncio.timeout(20):
        while True:  # the queue is there once a worker consumes
            with suppress(Exception):
                return await bus.publish(Pack(number=number))
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("point", crashing.POINTS)
async def test_f36_a_message_whose_worker_dies_reaches_the_browser_once(
    broker: Broker, redis_server: RedisServer, point: str
) -> None:
    bus = RabbitMQMessageBus(broker.url, exchange=broker.exchange)
    await bus.start()
    try:
        async with (
            WebSocketConnectionManager(RedisWebSocketConnectionBackend(redis_server.url)) as manager,
            serving(until_closed, manager=manager) as browser,
        ):
            await until(lambda: browser.connection in manager.connections)
            await manager.join(["orders"], browser.connection)
            async with worker(broker, redis_server, point) as dying:
                await publish(bus, 1)
                assert await asyncio.wait_for(dying.wait(), 20) == crashing.DIED
            async with worker(broker, redis_server, "never"):
                await publish(bus, 2)
                await until(lambda: [frame["message"]["n"] for frame in frames(browser)].count(2) == 2, 20)
            assert [frame["message"]["n"] for frame in frames(browser)] == [1, 1, 2, 2], (
                "a kept and a passing one, each once"
            )
    finally:
        await bus.stop()
