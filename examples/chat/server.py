"""A chat: REST in, WebSocket out, and a 'notify' button that goes through the message bus.

    jararaca-ws serve --app-dir examples/chat server:app

Without anything else it runs in one process. With CHAT_REDIS_URL every instance's browsers see every message, and with
CHAT_AMQP_URL the bus is RabbitMQ, and a worker handles it:

    jararaca-ws worker --app-dir examples/chat server:app
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import status
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, StringConstraints

from jararaca_ws import (
    Get,
    MemoryMessageBus,
    MemoryWebSocketConnectionBackend,
    Message,
    MessageBusController,
    MessageBusInterceptor,
    MessageHandler,
    MessageOf,
    Microservice,
    Post,
    RabbitMQMessageBus,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    use_ws_manager,
)

REDIS_URL = os.environ.get("CHAT_REDIS_URL")
AMQP_URL = os.environ.get("CHAT_AMQP_URL")

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


def now() -> datetime:
    return datetime.now(UTC)


# What browsers get.
class ChatMessage(WebSocketMessage):
    MESSAGE_ID = "chat.message"

    room: str
    name: str
    text: str
    sent_at: datetime = Field(default_factory=now)


class ChatNotification(WebSocketMessage):
    MESSAGE_ID = "chat.notification"

    room: str
    text: str
    sent_at: datetime = Field(default_factory=now)


# What travels on the message bus.
class Waved(Message):
    MESSAGE_TOPIC = "chat.waved"
    MESSAGE_TYPE = "task"

    room: str
    name: str


# What browsers send, through REST.
class NewMessage(BaseModel):
    name: Name
    text: Text


class Wave(BaseModel):
    name: Name


@RestController()
class ChatController:
    @Get("/", include_in_schema=False)
    async def page(self) -> FileResponse:
        return FileResponse(Path(__file__).with_name("index.html"))

    @Get("/info")
    async def info(self) -> dict[str, str]:
        return {
            "instance": use_ws_manager().instance_id[:8],
            "backend": "redis" if REDIS_URL else "memory",
            "bus": "rabbitmq" if AMQP_URL else "memory",
        }

    @Post("/rooms/{room}/messages", status_code=status.HTTP_202_ACCEPTED)
    async def post_message(self, room: str, message: NewMessage) -> None:
        # Staged: it leaves when this request has succeeded.
        await ChatMessage(room=room, name=message.name, text=message.text).send(room)

    @Post("/rooms/{room}/notify", status_code=status.HTTP_202_ACCEPTED)
    async def notify(self, room: str, wave: Wave) -> None:
        await Waved(room=room, name=wave.name).publish()

    # Joined before it is accepted, so a browser that is connected misses nothing.
    @WebSocketEndpoint("/ws/{room}", accept=False)
    async def listen(self, connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)
        await connection.accept()
        await connection.closed.wait()


@MessageBusController()
class ChatHandlers:
    @MessageHandler(Waved)
    async def on_waved(self, message: MessageOf[Waved]) -> None:
        waved = message.payload()
        await ChatNotification(room=waved.room, text=f"{waved.name} waves to everyone").send(waved.room)


app = Microservice(
    name="chat",
    controllers=[ChatController, ChatHandlers],
    interceptors=[
        # The first is the outermost: what a unit of work sends to rooms leaves last, after all else has succeeded.
        WebSocketInterceptor(
            backend=RedisWebSocketConnectionBackend(REDIS_URL) if REDIS_URL else MemoryWebSocketConnectionBackend()
        ),
        MessageBusInterceptor(bus=RabbitMQMessageBus(AMQP_URL) if AMQP_URL else MemoryMessageBus()),
    ],
)
