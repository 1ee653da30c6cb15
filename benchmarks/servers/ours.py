"""jararaca_ws as users run it: `jararaca-ws serve`, with all of its defaults."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.servers.control import REDIS_URL, Control, rooms_of
from jararaca_ws import (
    ConnectionSettings,
    MemoryWebSocketConnectionBackend,
    Microservice,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)
from jararaca_ws.wire.protocol import encode


class Text(WebSocketMessage):
    MESSAGE_ID = "bench"

    text: str


websockets = WebSocketInterceptor(
    backend=RedisWebSocketConnectionBackend(REDIS_URL) if REDIS_URL else MemoryWebSocketConnectionBackend(),
    settings=ConnectionSettings(handshake_rate=None),  # the load is one client, and comes at once
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


class Controlled:
    """The control socket lives as long as the application."""

    @asynccontextmanager
    async def intercept(self, app_context: Any) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        async with control.listening():
            yield


app = Microservice(controllers=[Bench], interceptors=[websockets, Controlled()])
