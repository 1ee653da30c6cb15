"""Workers, scripts and a bare AMQP connection against the private broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import Message, MessageBusWorker, RabbitMQMessageBus
from jararaca_ws.microservice import Microservice
from jararaca_ws.supervision import Backoff
from tests.unit.messagebus.serving import until

QUICK = Backoff(first_s=0.05, factor=1)


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"

    number: int = 0


class Pack(Message):
    MESSAGE_TOPIC = "orders.pack"
    MESSAGE_TYPE = "task"

    number: int = 0


class Broker:
    """The private node, and an exchange that no other test uses."""

    def __init__(self, url: str, exchange: str) -> None:
        self.url = url
        self.exchange = exchange

    def bus(self, **options: Any) -> RabbitMQMessageBus:
        return RabbitMQMessageBus(self.url, exchange=self.exchange, **options)

    @asynccontextmanager
    async def script(self, **options: Any) -> AsyncIterator[RabbitMQMessageBus]:
        """A bus that only publishes."""
        bus = self.bus(**options)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()

    @asynccontextmanager
    async def worker(
        self,
        *controllers: type,
        service: str = "shop",
        grace_s: float = 10,
        interceptors: Sequence[Any] = (),
        **options: Any,
    ) -> AsyncIterator[RabbitMQMessageBus]:
        """A worker that consumes; leaving stops it with its grace period."""
        bus = self.bus(**options)
        microservice = Microservice(
            controllers=controllers, interceptors=[MessageBusInterceptor(bus=bus), *interceptors], name=service
        )
        stop = asyncio.Event()
        worker = MessageBusWorker(microservice, grace=timedelta(seconds=grace_s))
        running = asyncio.create_task(worker.run(stop))
        try:
            await until(lambda: running.done() or (bus.healthy and bus._consumers))
            yield bus
        finally:
            stop.set()
            await running

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """What any other program with access to the broker can do."""
        connection = await aio_pika.connect(self.url)
        async with connection, connection.channel() as channel:
            yield channel

    async def survives_a_kill(self) -> None:
        """Wait until the node has the names of new quorum queues on disk.

        RabbitMQ 3.10 saves them every 0.5 s; killed before, it comes back with queues that never find their leader.
        """
        await asyncio.sleep(1.5)

    async def publish_raw(self, topic: str, body: bytes, **properties: Any) -> None:
        async with self.channel() as channel:
            exchange = await channel.get_exchange(self.exchange)
            await exchange.publish(aio_pika.Message(body, **{"content_type": "application/json", **properties}), topic)

    async def take(self, queue: str, timeout_s: float = 15) -> AbstractIncomingMessage:
        """Wait for one message of ``<exchange>.<queue>`` and take it out."""
        async with self.channel() as channel, asyncio.timeout(timeout_s):
            source = await channel.get_queue(f"{self.exchange}.{queue}", ensure=False)
            while (message := await source.get(fail=False)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await message.ack()
            return message

    async def count(self, queue: str) -> int:
        """How many messages are ready in ``<exchange>.<queue>``."""
        async with self.channel() as channel:
            declared = await channel.declare_queue(f"{self.exchange}.{queue}", passive=True)
            return declared.declaration_result.message_count or 0
