"""RabbitMQ behind a network that fails: what was confirmed is handled, what was not confirmed is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from jararaca_ws.errors import BrokerUnavailable
from jararaca_ws.messagebus import MessageBusController, MessageHandler
from jararaca_ws.testing import FaultProxy
from tests.rabbitmq.applications import Broker, Pack
from tests.servers import RabbitMQServer
from tests.unit.messagebus.serving import until

pytestmark = pytest.mark.rabbitmq


async def swallow_until_noticed(proxy: FaultProxy, healthy: Callable[[], bool]) -> None:
    proxy.blackhole()
    await until(lambda: not healthy(), timeout_s=10)
    proxy.heal()


async def lose_a_confirmation(proxy: FaultProxy, healthy: Callable[[], bool]) -> None:
    proxy.drop_replies()
    await until(lambda: proxy.lost_replies)
    proxy.heal()


FAULTS = [
    pytest.param(lambda proxy, healthy: proxy.cut(), id="cut"),
    pytest.param(lambda proxy, healthy: proxy.reset(), id="reset"),
    pytest.param(swallow_until_noticed, id="black hole"),
    pytest.param(lose_a_confirmation, id="lost replies"),
    pytest.param(lambda proxy, healthy: proxy.delay(0.01), id="delay"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_confirmed_is_handled(
    broker: Broker, rabbitmq_server: RabbitMQServer, fault: Callable[..., object]
) -> None:
    handled: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack)
        async def pack(self, message: Pack) -> None:
            handled.append(message.number)

    async with FaultProxy(rabbitmq_server.port) as proxy:
        behind = Broker(f"amqp://guest:guest@127.0.0.1:{proxy.port}/?heartbeat=1", broker.exchange)
        async with behind.worker(Orders, publish_timeout=timedelta(seconds=20)) as bus:
            confirmed: list[int] = []

            async def publish() -> None:
                for number in range(10_000):
                    await bus.publish(Pack(number=number))
                    confirmed.append(number)

            publishing = asyncio.create_task(publish())
            await until(lambda: len(handled) > 30)
            outcome = fault(proxy, lambda: bus.healthy)
            if asyncio.iscoroutine(outcome):
                await outcome
            before = len(confirmed)
            await until(lambda: len(confirmed) > before + 30, timeout_s=20)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await until(lambda: set(confirmed) <= set(handled), timeout_s=20)
            await until(lambda: bus.healthy)
            proxy.heal()
    assert handled[:30] == list(range(30))


async def test_into_a_black_hole_nothing_is_confirmed(broker: Broker, rabbitmq_server: RabbitMQServer) -> None:
    async with FaultProxy(rabbitmq_server.port) as proxy:
        behind = Broker(f"amqp://guest:guest@127.0.0.1:{proxy.port}/?heartbeat=1", broker.exchange)
        async with behind.script(publish_timeout=timedelta(seconds=0.5)) as bus:
            proxy.blackhole()
            with pytest.raises(BrokerUnavailable, match=r"not confirmed within 0\.5 s"):
                await bus.publish(Pack())
            proxy.heal()
