"""A worker in a process of its own that dies at one point of its first message: its handler sends to a room."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.interceptors.base import AppTransactionContext
from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messagebus import MessageBusController, MessageBusWorker, MessageHandler, RabbitMQMessageBus
from jararaca_ws.microservice import Microservice
from tests.rabbitmq.applications import Pack
from tests.unit.histories import Kept, Passing

DIED = 66
POINTS = ("in the handler", "between the flush and the acknowledgement")


class Crash:
    """Listed first, so what is left last is between the flush and the acknowledgement."""

    def __init__(self, point: str) -> None:
        self.point = point

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield
        if self.point == POINTS[1]:
            os._exit(DIED)


def orders(point: str) -> type:
    @MessageBusController()
    class Orders:
        @MessageHandler(Pack)
        async def pack(self, message: Pack) -> None:
            await Kept(n=message.number).send("orders")
            await Passing(n=message.number).send("orders")
            if point == POINTS[0]:
                os._exit(DIED)

    return Orders


async def main(amqp: str, exchange: str, redis: str, point: str) -> None:
    interceptors = [
        Crash(point),
        WebSocketInterceptor(backend=RedisWebSocketConnectionBackend(redis)),
        MessageBusInterceptor(bus=RabbitMQMessageBus(amqp, exchange=exchange)),
    ]
    microservice = Microservice(controllers=[orders(point)], interceptors=interceptors, name="crashing")
    await MessageBusWorker(microservice).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
