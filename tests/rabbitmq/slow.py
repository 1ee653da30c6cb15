"""A worker's application whose handler takes its time: `jararaca-ws worker tests.rabbitmq.slow:app`."""

from __future__ import annotations

import asyncio
import os

from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import MessageBusController, MessageHandler, RabbitMQMessageBus
from jararaca_ws.microservice import Microservice
from tests.rabbitmq.applications import Pack


@MessageBusController()
class Orders:
    @MessageHandler(Pack)
    async def pack(self, message: Pack) -> None:
        print(f"begun {message.number}", flush=True)  # noqa: T201  # the test reads it
        await asyncio.sleep(float(os.environ["SLOW_S"]))
        print(f"done {message.number}", flush=True)  # noqa: T201


app = Microservice(
    controllers=[Orders],
    interceptors=[
        MessageBusInterceptor(bus=RabbitMQMessageBus(os.environ["SLOW_AMQP_URL"], exchange=os.environ["SLOW_EXCHANGE"]))
    ],
    name="slow",
)
