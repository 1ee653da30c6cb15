"""A worker in a process of its own, one of whose messages kills it."""

from __future__ import annotations

import asyncio
import os
import sys

from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import MessageBusController, MessageBusWorker, MessageHandler, RabbitMQMessageBus
from jararaca_ws.microservice import Microservice
from tests.rabbitmq.applications import Pack, Placed

DIED = 66


@MessageBusController()
class Orders:
    @MessageHandler(Pack)
    async def pack(self, message: Pack) -> None:
        if message.number == 13:
            os._exit(DIED)
        await Placed(number=message.number).publish()


async def main(url: str, exchange: str) -> None:
    bus = RabbitMQMessageBus(url, exchange=exchange, delivery_limit=2)
    microservice = Microservice(controllers=[Orders], interceptors=[MessageBusInterceptor(bus=bus)], name="poisoned")
    await MessageBusWorker(microservice).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
