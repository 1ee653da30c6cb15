"""A WebSocket client that talks ASGI to an application in the same event loop: no server, no port, no thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

from jararaca_ws.wire.packing import pack, unpack
from jararaca_ws.wire.protocol import MSGPACK_SUBPROTOCOL

__all__ = ["InLoopWebSocket", "WebSocketClosed", "connect", "lifespan"]


class WebSocketClosed(Exception):
    """The application closed the socket, or refused it.

    Attributes:
        code: the close code; 1006 where the application ended without closing.
        reason: as the application gave it.
        status: of the HTTP answer, where the handshake was refused with one; else None.
    """

    def __init__(self, code: int, reason: str = "", status: int | None = None) -> None:
        super().__init__(code, reason, status)
        self.code = code
        self.reason = reason
        self.status = status


class InLoopWebSocket:
    """The browser's side of one socket. Made by `connect`.

    Attributes:
        subprotocol: what the application chose.
        scope: what the application was given.
    """

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.subprotocol: str | None = None
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | WebSocketClosed] = asyncio.Queue()
        self._reads = asyncio.Event()
        self._reads.set()
        self._closed: WebSocketClosed | None = None
        self._status: int | None = None
        self._vanished = False

    async def send_text(self, text: str) -> None:
        """Send a text frame."""
        await self._to_app.put({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        await self._to_app.put({"type": "websocket.receive", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value in a frame, as JSON, or as msgpack where that was agreed to."""
        text = json.dumps(value)
        data = pack(text.encode()) if self.subprotocol == MSGPACK_SUBPROTOCOL else None
        await (self.send_text(text) if data is None else self.send_bytes(data))

    async def receive(self, timeout_s: float = 5.0) -> str | bytes:
        """The next frame.

        Raises:
            WebSocketClosed: the application closed the socket.
            TimeoutError: nothing came.
        """
        message = await self._next(timeout_s)
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def receive_json(self, timeout_s: float = 5.0) -> Any:
        """The next frame, parsed: JSON, or msgpack where that was agreed to and the frame is binary.

        Raises:
            WebSocketClosed, TimeoutError: as `receive`.
        """
        frame = await self.receive(timeout_s)
        if isinstance(frame, bytes) and self.subprotocol == MSGPACK_SUBPROTOCOL:
            frame = unpack(frame)
        return json.loads(frame)

    async def closed(self, timeout_s: float = 5.0) -> WebSocketClosed:
        """Read to the end; returns how the application closed the socket."""
        while True:
            try:
                await self.receive(timeout_s)
            except WebSocketClosed as closed:
                return closed

    def stall(self) -> None:
        """Stop reading: what the application writes next waits, as on a socket whose buffers are full."""
        self._reads.clear()

    def resume(self) -> None:
        """Read again."""
        self._reads.set()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Go. The application gets a disconnect, and its writes fail from here on."""
        self._vanished = True
        self._reads.set()
        await self._to_app.put({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def _next(self, timeout_s: float) -> Message:
        if self._closed is None:
            async with asyncio.timeout(timeout_s):
                message = await self._from_app.get()
            if not isinstance(message, WebSocketClosed):
                return message
            self._closed = message
        raise self._closed

    # --- the application's side ---------------------------------------------------------------------------------------

    async def _receive(self) -> Message:
        return await self._to_app.get()

    async def _send(self, message: Message) -> None:
        await self._reads.wait()
        if self._vanished:
            raise OSError("the client has gone")
        kind = message["type"]
        if kind in ("websocket.accept", "websocket.send"):
            await self._from_app.put(message)
        elif kind == "websocket.close":
            self._end(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            self._status = message["status"]
        elif not message.get("more_body"):
            self._end(1006, "")

    def _end(self, code: int, reason: str) -> None:
        self._from_app.put_nowait(WebSocketClosed(code, reason, self._status))
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})


@asynccontextmanager
async def connect(
    app: ASGIApp, path: str, *, subprotocols: Iterable[str] = (), headers: Mapping[str, str] | None = None
) -> AsyncIterator[InLoopWebSocket]:
    """Open a socket to an application; close it, and wait until the application is done with it, at the end.

    Raises:
        WebSocketClosed: the handshake was refused.
    """
    socket = InLoopWebSocket(_scope(path, list(subprotocols), headers or {}))
    serving = asyncio.create_task(_serve(app, socket), name=f"in-loop WebSocket {path}")
    try:
        await socket._to_app.put({"type": "websocket.connect"})
        socket.subprotocol = (await socket._next(5.0)).get("subprotocol")
        yield socket
    finally:
        await socket.close(1001)
        await _ended(serving)
    if not serving.cancelled():
        serving.result()  # raises what the application has raised


async def _serve(app: ASGIApp, socket: InLoopWebSocket) -> None:
    try:
        await app(socket.scope, socket._receive, socket._send)
    finally:
        socket._from_app.put_nowait(WebSocketClosed(1006))


def _scope(path: str, subprotocols: list[str], headers: Mapping[str, str]) -> dict[str, Any]:
    raw_path, _, query = path.partition("?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in {"host": "testserver", **headers}.items()
        ],
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "subprotocols": subprotocols,
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """Start an application as a server would, and stop it.

    Raises:
        RuntimeError: it failed to start or to stop, with what it said.
    """
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.create_task(_live(app, to_app, from_app), name="in-loop lifespan")
    try:
        await _step("startup", to_app, from_app)
        try:
            yield
        finally:
            await _step("shutdown", to_app, from_app)
    finally:
        await _ended(living)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for the application to be done; cancel it when it is not, long after it should have been."""
    await asyncio.wait([task], timeout=15)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _live(app: ASGIApp, to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]) -> None:
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    try:
        await app(scope, to_app.get, from_app.put)
    except Exception as error:
        await from_app.put({"type": "lifespan.failed", "message": repr(error)})


async def _step(step: str, to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]) -> None:
    await to_app.put({"type": f"lifespan.{step}"})
    answer = await from_app.get()
    if answer["type"] != f"lifespan.{step}.complete":
        raise RuntimeError(f"the application did not survive its {step}: {answer.get('message', '')}")
