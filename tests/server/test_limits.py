"""What a client may do to the server: long messages, control frames, fragments; and what all may who come at once."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.microservice import Microservice, RestController, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from tests.server.running import (
    BINARY,
    CONT,
    FAST,
    PING,
    PLAIN,
    PONG,
    TEXT,
    frame,
    raw_socket,
    running,
    until,
)

PATHS = pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
LIMIT = 1000


@PATHS
@pytest.mark.parametrize(
    ("written", "is_refused"),
    [
        (frame(TEXT, b"x" * LIMIT), False),
        (frame(TEXT, b"x" * (LIMIT + 1)), True),
        (frame(TEXT, "é".encode() * (LIMIT // 2)), False),
        (frame(TEXT, "é".encode() * (LIMIT // 2 + 1)), True),
        (frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 600), True),
        (frame(BINARY, b"x" * (LIMIT + 1)), True),
    ],
)
async def test_b1_the_framework_refuses_what_the_server_lets_through(protocol: Any, written: bytes, is_refused: bool):
    """uvicorn's own default is 16 MiB."""
    settings = WebSocketSettings(max_message_bytes=LIMIT)
    async with running(protocol, settings=settings, ws_max_size=16 * 1024 * 1024) as server:
        async with raw_socket(server.port, "/echo") as client:
            await client.write(written)
            if is_refused:
                assert await client.close_code() == 1009
                await until(lambda: not server.connections)
            else:
                first, _ = await client.frame()
                assert first & 15 == TEXT


async def test_b1_fragments_are_counted_too():
    """Empty ones add nothing to the size of a message, and each is kept."""
    async with running(FAST) as server, raw_socket(server.port, "/echo") as client:
        await client.write(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 4000 + frame(CONT, b"x"))
        assert await client.frame() == (0x80 | TEXT, b"x")
        await client.write(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5000)
        assert await client.close_code() == 1009
        await client.ended()
        await until(lambda: not (server.protocols or server.connections))


@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_b29_ten_thousand_control_frames_end_the_connection(opcode: int, caplog: pytest.LogCaptureFixture):
    async with running(FAST) as server, raw_socket(server.port, "/echo") as other:
        async with raw_socket(server.port, "/echo") as client:
            for _ in range(20):
                # Paced by the answers, or the close frame would be lost: TCP resets what is closed with more to read.
                await client.write(frame(opcode, b"x") * 10 + frame(TEXT, b"x"))
                while (answer := await client.frame()) == (0x80 | PONG, b"x"):
                    pass
                assert answer == (0x80 | TEXT, b"x")
            await client.write(frame(opcode, b"x"))
            assert await client.close_code() == 4013
            await client.ended()
        async with raw_socket(server.port, "/echo") as client:
            await client.write(frame(opcode, b"x") * 10_000)
            await client.ended()
        await until(lambda: len(server.protocols) == len(server.connections) == 1)
        await other.write(frame(TEXT, b"still there"))
        assert await other.frame() == (0x80 | TEXT, b"still there")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_b29_who_pings_now_and_then_goes_on():
    async with running(FAST) as server, raw_socket(server.port, "/echo") as client:
        for _ in range(100):
            await client.write(frame(PING, b"x") + frame(PONG))
            assert await client.frame() == (0x80 | PONG, b"x")
        (protocol,) = server.protocols
        protocol._counted_until = 0.0  # ten seconds later
        for _ in range(100):
            await client.write(frame(PING, b"x") + frame(PONG))
            assert await client.frame() == (0x80 | PONG, b"x")


class Comer:
    """A client that comes back when it was told to.

    Attributes:
        refusals: how often it was refused.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.refusals = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def come(self) -> None:
        while not await self._accepted():
            self.refusals += 1

    async def go(self) -> None:
        self._writers[-1].close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _accepted(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"GET /authenticated HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        self._writers.append(writer)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if head.startswith("http/1.1 101"):
            return True
        assert head.startswith("http/1.1 503"), head
        (wait,) = [line.partition(":")[2] for line in head.splitlines() if line.startswith("retry-after:")]
        writer.close()
        await asyncio.sleep(int(wait))
        return False


async def test_f44_all_who_come_at_once_are_back_soon_and_nobody_is_asked_by_all_at_once():
    """1,000 clients at 250 in a second; the table has 5,000, which takes as long at 1,250 in a second."""
    count, rate, burst = 1000, 250, 100
    asked: list[float] = []

    @RestController("")
    class Authenticated:
        @WebSocketEndpoint("/authenticated")
        async def authenticated(self, connection: WebSocketConnection) -> None:
            asked.append(time.monotonic())  # as a database would be
            await connection.closed.wait()

    settings = WebSocketSettings(handshake_rate=rate, handshake_burst=burst)
    interceptor = WebSocketInterceptor(settings=settings)
    app = create_http_server(Microservice(controllers=[Authenticated], interceptors=[interceptor]))
    async with running(FAST, app=app, backlog=count) as server:
        clients = [Comer(server.port) for _ in range(count)]
        async with asyncio.timeout(30), asyncio.TaskGroup() as coming:
            for client in clients:
                coming.create_task(client.come())
        assert len(asked) == count
        for since in asked:
            within = [moment for moment in asked if since <= moment < since + 1]
            assert len(within) <= burst + rate
        # Nearly all were let in when they came as they were told.
        assert sum(client.refusals for client in clients) < 1.5 * count
        await asyncio.gather(*(client.go() for client in clients))
        assert interceptor.manager.admission.refused == sum(client.refusals for client in clients)
