from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.errors import BrokerUnavailable, ConfigurationError
from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import HandlerSpec, MemoryMessageBus, Message, MessageBusController, MessageHandler
from jararaca_ws.messagebus.worker import MessageBusWorker
from jararaca_ws.microservice import Microservice
from tests.unit.messagebus.serving import until


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"


@MessageBusController()
class Orders:
    @MessageHandler(Placed)
    async def handle(self, message: Placed) -> None: ...


class ElsewhereBus(MemoryMessageBus):
    """Says that its messages live in a broker."""

    embedded = False

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.fails = False

    async def consume(self, handlers: Sequence[HandlerSpec], dispatch: Any, *, service: str) -> None:
        if self.fails:
            raise BrokerUnavailable("it is away")
        self.log.append(("consume", [handler.name for handler in handlers], service))

    async def stop_consuming(self, grace: timedelta) -> None:
        self.log.append(("stop_consuming", grace.total_seconds()))

    async def stop(self) -> None:
        self.log.append("stop")


def microservice(*buses: Any, controllers: Sequence[type] = (Orders,)) -> Microservice:
    return Microservice(
        controllers=controllers, interceptors=[MessageBusInterceptor(bus=bus) for bus in buses], name="shop"
    )


async def test_it_consumes_until_it_is_stopped_then_gives_grace() -> None:
    bus, stop = ElsewhereBus(), asyncio.Event()
    worker = MessageBusWorker(microservice(bus), grace=timedelta(seconds=7))
    task = asyncio.create_task(worker.run(stop))
    await until(lambda: bus.log)
    assert bus.log == [("consume", ["Orders.handle"], "shop")]
    stop.set()
    await task
    assert bus.log[1:] == [("stop_consuming", 7.0), ("stop_consuming", 0.0), "stop"]


async def test_without_handlers_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'shop' has no message handlers"):
        await MessageBusWorker(microservice(ElsewhereBus(), controllers=())).run(asyncio.Event())


async def test_without_a_bus_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="put a MessageBusInterceptor"):
        await MessageBusWorker(microservice()).run(asyncio.Event())


async def test_with_two_buses_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="2 of MessageBusInterceptor"):
        await MessageBusWorker(microservice(ElsewhereBus(), ElsewhereBus())).run(asyncio.Event())


async def test_with_the_in_memory_bus_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"MemoryMessageBus never leave.*jararaca-ws serve"):
        await MessageBusWorker(microservice(MemoryMessageBus())).run(asyncio.Event())


async def test_a_broker_that_is_away_at_the_start_is_an_error() -> None:
    bus = ElsewhereBus()
    bus.fails = True
    with pytest.raises(BrokerUnavailable, match="away"):
        await MessageBusWorker(microservice(bus)).run(asyncio.Event())
    assert bus.log[-1] == "stop"
