"""jararaca_ws as users run it: `jararaca-ws serve`, with all of its defaults."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from benchmarks.servers.control import REDIS_URL, Control, rooms_of
from jararaca_ws import (
    MemoryWebSocketConnectionBackend,
    Microservice,
    Receive,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketSettings,
    create_http_server,
)
from jararaca_ws.wire.protocol import encode


class Text(WebSocketMessage):
    MESSAGE_ID = "bench"

    text: str


class Controlled(WebSocketInterceptor):
    """The control socket lives as long as the application. Not an interceptor of its own: it would be measured."""

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        async with super().lifecycle(app, container), control.listening():
            yield


websockets = Controlled(
    backend=RedisWebSocketConnectionBackend(REDIS_URL) if REDIS_URL else MemoryWebSocketConnectionBackend(),
    settings=WebSocketSettings(handshake_rate=None),  # the load is one client, and comes at once
)


async def send(room: str, text: str) -> None:
    await websockets.manager.send([room], Text(text=text))


control = Control(send, envelope=len(encode(Text(text="")).data), side_by_side=500 if REDIS_URL else 1)


@RestController()
class Bench:
    # Joined before it is accepted, so a client that is connected misses nothing.
    @WebSocketEndpoint("/ws", accept=False)
    async def listen(self, connection: WebSocketConnection) -> None:
        await connection.join(*rooms_of(connection.websocket.url.query))
        await connection.accept()
        control.joined += 1
        try:
            await connection.closed.wait()
        finally:
            control.left += 1


@RestController()
class Inbound:
    @WebSocketEndpoint("/inbound")
    async def connected(self, connection: WebSocketConnection) -> None:
        control.joined += 1

    @Receive(Text)
    async def received(self, message: Text) -> Text:
        return message


app = Microservice(controllers=[Bench, Inbound], interceptors=[websockets])


def http_server() -> FastAPI:
    """The same under any ASGI server."""
    return create_http_server(app)
