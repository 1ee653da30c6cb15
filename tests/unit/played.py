"""The server's side of a WebSocket, played by a test: what it hands to `WebSocketConnection` and what it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message

from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.serving import ServedWebSocket

Handler = Callable[[WebSocketConnection], Awaitable[None]]


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Let the loop turn until the condition holds; for state that no event announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything that can run now run: for showing that something does NOT happen."""
    for _ in range(count):
        await asyncio.sleep(0)


class FakeServer:
    """An ASGI server with one socket.

    Attributes:
        sent: what it has taken, in order; `taking` holds it back as a full socket buffer does.
        in_send: how many `send` calls are under way, and `most_in_send` how many there ever were.
        vanished: whether `send` fails, as it does once the peer has gone.
    """

    def __init__(self) -> None:
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        self.to_app.put_nowait({"type": "websocket.connect"})
        self.sent: list[Message] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.in_send = self.most_in_send = 0
        self.vanished = False

    async def receive(self) -> Message:
        return await self.to_app.get()

    async def send(self, message: Message) -> None:
        self.in_send += 1
        self.most_in_send = max(self.in_send, self.most_in_send)
        try:
            await asyncio.sleep(0)
            await self.taking.wait()
            if self.vanished:
                raise OSError("the peer has gone")
            self.sent.append(message)
        finally:
            self.in_send -= 1
        if message["type"] == "websocket.close":
            self.disconnect(message.get("code", 1000))

    def text(self, text: str) -> None:
        self.to_app.put_nowait({"type": "websocket.receive", "text": text})

    def binary(self, data: bytes) -> None:
        self.to_app.put_nowait({"type": "websocket.receive", "bytes": data})

    def disconnect(self, code: int = 1001) -> None:
        self.to_app.put_nowait({"type": "websocket.disconnect", "code": code, "reason": ""})

    @property
    def frames(self) -> list[str | bytes]:
        return [
            message["bytes"] if message.get("text") is None else message["text"]
            for message in self.sent
            if message["type"] == "websocket.send"
        ]

    @property
    def kinds(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]

    @property
    def close(self) -> tuple[int, str] | None:
        """The code and reason of the close frame; None where there was none."""
        closes = [message for message in self.sent if message["type"] == "websocket.close"]
        assert len(closes) <= 1, "a socket is closed once"
        return (closes[0]["code"], closes[0]["reason"]) if closes else None


class Socket:
    """One connection that is being served, and the server under it."""

    def __init__(
        self, handler: Handler, settings: WebSocketSettings | None, subprotocols: list[str], extensions: dict[str, Any]
    ) -> None:
        self.server = FakeServer()
        scope = {
            "type": "websocket",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "subprotocols": subprotocols,
            "extensions": extensions,
        }
        self.served = ServedWebSocket(scope, self.server.receive, self.server.send, settings)
        self.connection = self.served.connection
        self.task = asyncio.create_task(self.served.run(lambda: handler(self.connection)))

    async def ended(self, timeout_s: float = 5.0) -> None:
        """Wait until the connection has been served."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self.task)


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    settings: WebSocketSettings | None = None,
    manager: WebSocketConnectionManager | None = None,
    subprotocols: list[str] | None = None,
    extensions: dict[str, Any] | None = None,
    accept: bool = True,
) -> AsyncIterator[Socket]:
    """Serve a handler on a fake server; whatever is left at the end is cancelled."""

    async def accepting(connection: WebSocketConnection) -> None:
        if accept:
            await connection.accept()
        if manager is not None:
            await manager.add_websocket(connection)
        await handler(connection)

    socket = Socket(accepting, settings, subprotocols or [], extensions or {})
    if manager is not None:
        socket.connection.bind(manager)  # before anything runs, as where it is served for real
    try:
        if accept:
            await until(lambda: socket.connection.state.value >= 1)
        yield socket
    finally:
        socket.task.cancel()
        await asyncio.gather(socket.task, return_exceptions=True)


async def until_closed(connection: WebSocketConnection) -> None:
    """A handler that does nothing: neither reads nor writes."""
    await connection.closed.wait()


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]
