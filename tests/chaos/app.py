"""What the instances and the worker of a chaos run serve: messages of each kind to rooms, and a bus message."""

import os
from datetime import timedelta
from typing import Annotated

from fastapi import Query, status
from pydantic import BaseModel

from jararaca_ws import (
    Backoff,
    Get,
    MemoryMessageBus,
    Message,
    MessageBusController,
    MessageBusInterceptor,
    MessageHandler,
    Microservice,
    Post,
    RabbitMQMessageBus,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketSettings,
    recoverable,
    use_ws_manager,
)

REDIS_URL = os.environ["CHAOS_REDIS_URL"]
# Empty: there is no RabbitMQ, and nothing goes over the bus.
AMQP_URL = os.environ["CHAOS_AMQP_URL"]


class Numbered(BaseModel):
    # Or several, with spaces between.
    room: str
    sender: str
    sequence: int


class Kept(WebSocketMessage):
    MESSAGE_ID = "chaos.kept"
    # Nothing is ever trimmed, so whoever comes back can be recovered.
    DELIVERY = recoverable(size=10_000, ttl=timedelta(hours=1))

    room: str
    sender: str
    sequence: int


class Passing(WebSocketMessage):
    MESSAGE_ID = "chaos.passing"

    room: str
    sender: str
    sequence: int


class Pushed(Message):
    MESSAGE_TOPIC = "chaos.pushed"
    MESSAGE_TYPE = "task"

    room: str
    sender: str
    sequence: int


@RestController()
class ChaosController:
    @Get("/info")
    async def info(self) -> str:
        return use_ws_manager().instance_id

    @Post("/kept", status_code=status.HTTP_202_ACCEPTED)
    async def kept(self, one: Numbered) -> None:
        await Kept(**one.model_dump()).send(*one.room.split())

    @Post("/passing", status_code=status.HTTP_202_ACCEPTED)
    async def passing(self, one: Numbered) -> None:
        await Passing(**one.model_dump()).send(one.room)

    # Its sender tries again with the same id until it is accepted.
    @Post("/keyed", status_code=status.HTTP_202_ACCEPTED)
    async def keyed(self, one: Numbered) -> None:
        await use_ws_manager().send([one.room], Kept(**one.model_dump()), id=f"{one.sender}:{one.sequence}")

    @Post("/pushed", status_code=status.HTTP_202_ACCEPTED)
    async def pushed(self, one: Numbered) -> None:
        await Pushed(**one.model_dump()).publish()

    @WebSocketEndpoint("/listen", accept=False)
    async def listen(self, connection: WebSocketConnection, room: Annotated[list[str], Query()]) -> None:
        await connection.join(*room)
        await connection.accept()
        await connection.closed.wait()


@MessageBusController()
class ChaosHandlers:
    @MessageHandler(Pushed, max_attempts=1000, backoff=Backoff(first_s=1.0, factor=1.0, max_s=1.0), concurrency=8)
    async def on_pushed(self, pushed: Pushed) -> None:
        await Kept(**pushed.model_dump()).send(pushed.room)
        await Passing(**pushed.model_dump()).send(pushed.room)


app = Microservice(
    name="chaos",
    controllers=[ChaosController, ChaosHandlers],
    interceptors=[
        WebSocketInterceptor(
            backend=RedisWebSocketConnectionBackend(REDIS_URL), settings=WebSocketSettings(max_recovered=10_000)
        ),
        MessageBusInterceptor(
            # A worker that is killed again and again is no reason to give a message up here.
            bus=RabbitMQMessageBus(AMQP_URL, delivery_limit=1000) if AMQP_URL else MemoryMessageBus()
        ),
    ],
)
