"""A real uvicorn in the loop of the test, an application on it, and a client that writes and reads raw frames."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.websockets import WebSocket

from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, RestController, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.server import HTTPProtocol, WebSocketProtocol
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection

FAST: Any = WebSocketProtocol
PLAIN: Any = "websockets-sansio"
"""What uvicorn has by itself: the fallback path."""

MAX_SIZE = 64 * 1024


class Note(WebSocketMessage):
    MESSAGE_ID = "server.note"

    text: str = ""
    n: int = 0


class Failure(Exception):
    """What a handler raises; its text is nobody's business."""


@RestController("")
class Sockets:
    @WebSocketEndpoint("/room/{room}")
    async def room(self, room: str, connection: WebSocketConnection) -> None:
        """In a room; reads what comes."""
        await connection.join(room)
        async for _ in connection:
            raise AssertionError("the clients of a room say nothing")

    @WebSocketEndpoint("/echo")
    async def echo(self, connection: WebSocketConnection) -> None:
        async for message in connection.websocket.iter_text():
            await connection.websocket.send_text(message)

    @WebSocketEndpoint("/mixed/{room}")
    async def mixed(self, room: str, connection: WebSocketConnection) -> None:
        """Its own texts with a room's messages in between: even numbers and odd ones."""
        await connection.join(room)
        await connection.websocket.receive_text()
        for n in range(200):
            if n % 2:
                await Note(text="x" * 400, n=n).send(room)
            else:
                await connection.send(Note(text="y" * 400, n=n))
        await connection.closed.wait()

    @WebSocketEndpoint("/fail")
    async def fail(self, connection: WebSocketConnection) -> None:
        raise Failure("secret")

    @WebSocketEndpoint("/busy/{room}")
    async def busy(self, room: str, connection: WebSocketConnection) -> None:
        """Reads one message, and is at work on it for ever."""
        await connection.join(room)
        await connection.websocket.receive_text()
        await asyncio.Event().wait()

    @WebSocketEndpoint("/fails-early", accept=False)
    async def fails_early(self, connection: WebSocketConnection) -> None:
        raise Failure("secret")

    @WebSocketEndpoint("/slow", accept=False)
    async def slow(self, connection: WebSocketConnection) -> None:
        """Takes its time with the handshake."""
        await connection.closed.wait()

    @WebSocketEndpoint("/idle")
    async def idle(self, connection: WebSocketConnection, websocket: WebSocket) -> None:
        """Never reads."""
        await connection.closed.wait()


@dataclass
class Running:
    server: uvicorn.Server
    manager: WebSocketConnectionManager
    port: int
    protocol: Any

    @property
    def protocols(self) -> list[Any]:
        """The sockets that uvicorn has, from its own books."""
        return list(self.server.server_state.connections)

    @property
    def connections(self) -> list[WebSocketConnection]:
        return list(self.manager.connections)

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def kernel_sockets(self, client_port: int) -> int:
        """The sockets of this process to that client: those that the kernel has and that a process still owns."""
        ends = (f":{self.port:04X}", f":{client_port:04X}")
        with open("/proc/net/tcp") as table:
            rows = [row.split() for row in table][1:]
        return sum(row[1].endswith(ends[0]) and row[2].endswith(ends[1]) and row[9] != "0" for row in rows)


async def until(condition: Callable[[], Any], timeout_s: float = 5.0, what: str = "") -> None:
    """Poll a condition that no event announces."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what or condition}") from None


@asynccontextmanager
async def running(
    protocol: Any = FAST,
    *,
    controller: type = Sockets,
    settings: WebSocketSettings | None = None,
    app: Any = None,
    **config: Any,
) -> AsyncIterator[Running]:
    """Serve the application on a random port; at the end every socket that is left is aborted."""
    interceptor = WebSocketInterceptor(settings=settings)
    app = app or create_http_server(Microservice(controllers=[controller], interceptors=[interceptor]))
    options = {"ws_max_size": MAX_SIZE, "ws_per_message_deflate": False, "log_config": None, **config}
    if protocol is FAST:
        options = {"http": HTTPProtocol, **options}
    server = uvicorn.Server(uvicorn.Config(app, ws=protocol, timeout_graceful_shutdown=1, **options))
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        await until(lambda: server.started or serving.done())
        yield Running(server, interceptor.manager, listening.getsockname()[1], protocol)
    finally:
        for left in list(server.server_state.connections):
            left.transport.abort()
        server.should_exit = True
        await serving
        listening.close()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """A client's frame."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 0x10000:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class RawSocket:
    """A client that does what it is told, and nothing by itself: no pong, no close, no reading."""

    def __init__(self, raw: socket.socket, head: bytes, rest: bytes) -> None:
        self.raw = raw
        self.head = head
        self._buffer = rest
        self.port = raw.getsockname()[1]

    @property
    def headers(self) -> str:
        return self.head.decode("latin-1").lower()

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.raw, data)

    def half_close(self) -> None:
        """Say that nothing more will be written."""
        with suppress(OSError):  # the server has gone
            self.raw.shutdown(socket.SHUT_WR)

    async def read(self, size: int = 65536) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.raw, size)

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.read()
            if not data:
                raise EOFError
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def frame(self, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload.

        Raises:
            EOFError: the server ended the connection.
        """
        async with asyncio.timeout(timeout_s):
            first, second = await self._exactly(2)
            assert second < 128, "a server masks nothing"
            length = second
            if second == 126:
                (length,) = struct.unpack("!H", await self._exactly(2))
            elif second == 127:
                (length,) = struct.unpack("!Q", await self._exactly(8))
            return first, await self._exactly(length)

    async def close_code(self, timeout_s: float = 5.0) -> int | None:
        """Read to the close frame: its code. None where the connection ends without one."""
        try:
            while True:
                first, payload = await self.frame(timeout_s)
                if first & 15 == CLOSE:
                    return int.from_bytes(payload[:2])
        except (EOFError, ConnectionResetError):
            return None

    async def ended(self, timeout_s: float = 5.0) -> None:
        """Read to the end of the connection."""
        async with asyncio.timeout(timeout_s):
            try:
                while await self.read():
                    pass
            except ConnectionResetError:
                return


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
)
"""The lines of a handshake: upgrade, version, key."""


def request_head(first_line: str, *lines: str) -> bytes:
    """The head of a request; the lines with their ends."""
    return "".join((f"{first_line}\r\nHost: x\r\n", *lines, "\r\n")).encode("latin-1")


@asynccontextmanager
async def raw_socket(
    port: int,
    path: str,
    *,
    offer: str | None = None,
    subprotocols: str | None = None,
    receive_buffer: int | None = None,
) -> AsyncIterator[RawSocket]:
    """Connect and shake hands.

    Args:
        offer: of Sec-WebSocket-Extensions.
        subprotocols: of Sec-WebSocket-Protocol.
        receive_buffer: SO_RCVBUF; small, for a client that does not read.
    """
    raw = socket.socket()
    raw.setblocking(False)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(raw, ("127.0.0.1", port))
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer is not None else ""
        offered = f"Sec-WebSocket-Protocol: {subprotocols}\r\n" if subprotocols is not None else ""
        await loop.sock_sendall(raw, request_head(f"GET {path} HTTP/1.1", *UPGRADE, extensions + offered))
        answer = b""
        async with asyncio.timeout(5):
            while b"\r\n\r\n" not in answer:
                data = await loop.sock_recv(raw, 65536)
                assert data, answer
                answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        yield RawSocket(raw, head, rest)
    finally:
        raw.close()
