"""B30, B31, B39: what is no handshake, or a bad one. uvicorn's own protocols leave some of them without an answer."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.server.running import TEXT, UPGRADE, Running, frame, raw_socket, request_head, running, until

UP, VERSION, KEY = UPGRADE
SECRET = "hunter2"
TIMEOUT_S = 0.2
LONG = f"X-Long: {SECRET * 1300}\r\n"

# What is written, and the status of the answer.
REFUSED: dict[str, tuple[bytes, int]] = {
    "B31 a header of more than 8 KiB": (request_head("GET /echo HTTP/1.1", *UPGRADE, LONG), 431),
    "B31 129 headers": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, *(f"X-{n}: {SECRET}\r\n" for n in range(129))),
        431,
    ),
    "B31 a path of more than 8 KiB": (request_head(f"GET /echo?{SECRET * 1300} HTTP/1.1", *UPGRADE), 414),
    "B31 1,000 subprotocols": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, f"Sec-WebSocket-Protocol: {', '.join([SECRET] * 1000)}\r\n"),
        431,
    ),
    "B31 a CR in a subprotocol": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, f"Sec-WebSocket-Protocol: a\rSet-Cookie: {SECRET}\r\n"),
        400,
    ),
    "B31 a NUL in a subprotocol": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, f"Sec-WebSocket-Protocol: a\0{SECRET}\r\n"),
        400,
    ),
    "B31 a subprotocol that is none": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, f'Sec-WebSocket-Protocol: a b;"{SECRET}\r\n'),
        400,
    ),
    "B31 a handshake with a body": (
        request_head("GET /echo HTTP/1.1", *UPGRADE, "Content-Length: 7\r\n") + b"hunter2",
        400,
    ),
    "B31 no HTTP": (b"\x16\x03\x01hunter2\r\n\r\n", 400),
    "B39 a plain GET": (request_head("GET /echo HTTP/1.1"), 426),
    "B39 a plain GET of a path with a parameter": (request_head(f"GET /room/{SECRET} HTTP/1.1"), 426),
    "B39 no Connection: Upgrade": (request_head("GET /echo HTTP/1.1", "Upgrade: websocket\r\n", VERSION, KEY), 426),
    "B39 version 8": (request_head("GET /echo HTTP/1.1", UP, KEY, "Sec-WebSocket-Version: 8\r\n"), 400),
    "B39 no version": (request_head("GET /echo HTTP/1.1", UP, KEY), 400),
    "B39 a version that is none": (
        request_head("GET /echo HTTP/1.1", UP, KEY, f"Sec-WebSocket-Version: {SECRET}\r\n"),
        400,
    ),
    "B39 no key": (request_head("GET /echo HTTP/1.1", UP, VERSION), 400),
    "B39 a key that is none": (
        request_head("GET /echo HTTP/1.1", UP, VERSION, f"Sec-WebSocket-Key: {SECRET}\r\n"),
        400,
    ),
    "B39 two keys": (request_head("GET /echo HTTP/1.1", UP, VERSION, KEY, KEY), 400),
    "B39 POST": (request_head("POST /echo HTTP/1.1", *UPGRADE), 405),
    "B39 nothing there": (request_head("GET /nothing HTTP/1.1", *UPGRADE), 403),
    "B39 nothing there, without a handshake": (request_head("GET /nothing HTTP/1.1"), 404),
}


def impatient() -> Any:
    """Our protocol, made anew, of the HTTP protocol that uvicorn has now."""
    spec = importlib.util.find_spec("jararaca_ws.server.heads")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.HTTPProtocol.head_timeout_s = TIMEOUT_S
    return module.HTTPProtocol


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.readuntil(b"\r\n\r\n")


def of_row(row: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith(f"{row} ")])


async def is_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    written, status = REFUSED[name]
    caplog.set_level(logging.INFO)
    async with running() as server, connected(server.port) as (reader, writer):
        writer.write(written)
        got = await answer(reader)
        assert got.split()[1] == str(status).encode(), got
        if status not in (404, 426):  # these leave the connection open for another request
            async with asyncio.timeout(5):
                got += await reader.read()
            await until(lambda: not server.protocols)
        assert SECRET.encode() not in got
        assert server.connections == []
    told = [record.getMessage() for record in caplog.records if record.name != "uvicorn.access"]  # that has paths
    assert SECRET not in "".join(told)


@of_row("B31")
async def test_b31_heads_that_are_too_much(name: str, caplog: pytest.LogCaptureFixture):
    await is_refused(name, caplog)


@of_row("B39")
async def test_b39_requests_that_are_no_handshake(name: str, caplog: pytest.LogCaptureFixture):
    await is_refused(name, caplog)


async def test_b39_a_refusal_says_which_version_is_meant():
    async with running() as server, connected(server.port) as (reader, writer):
        writer.write(REFUSED["B39 version 8"][0])
        assert b"sec-websocket-version: 13\r\n" in (await answer(reader)).lower()
    async with running() as server, connected(server.port) as (reader, writer):
        writer.write(REFUSED["B39 a plain GET"][0])
        got = (await answer(reader)).lower()
        assert b"upgrade: websocket\r\n" in got
        assert b"connection: upgrade\r\n" in got


async def test_b31_a_head_without_an_end_is_bounded():
    async with running() as server, connected(server.port) as (reader, writer):
        writer.write(b"GET /echo HTTP/1.1\r\nX: ")
        for _ in range(80):
            writer.write(b"x" * 1024)
        assert (await answer(reader)).split()[1] == b"431"
        await until(lambda: not server.protocols)


HALVES = {
    "nothing": b"",
    "half a head": request_head("GET /echo HTTP/1.1", *UPGRADE)[:-2],
    "one byte": b"G",
}


async def _is_dropped_in_time(server: Running, half: bytes) -> None:
    async with connected(server.port) as (reader, writer):
        writer.write(half)
        async with asyncio.timeout(5):
            await reader.read()
        await until(lambda: not server.protocols)


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("http", ["auto", "h11"])
async def test_b30_half_a_handshake_is_dropped(half: bytes, http: str, monkeypatch: pytest.MonkeyPatch):
    if http == "h11":  # as where httptools is not installed
        monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", H11Protocol)
    async with running(http=impatient()) as server:
        await _is_dropped_in_time(server, half)


@pytest.mark.parametrize("http", ["auto", "h11"])
async def test_b30_the_second_half_head_is_dropped_as_well(http: str, monkeypatch: pytest.MonkeyPatch):
    if http == "h11":
        monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", H11Protocol)
    async with running(http=impatient()) as server, connected(server.port) as (reader, writer):
        writer.write(request_head("GET /nothing HTTP/1.1"))
        await answer(reader)
        writer.write(b"GET /echo HT")
        async with asyncio.timeout(3):  # not the keep-alive timeout
            await reader.read()


async def test_b30_a_head_that_trickles_is_dropped():
    async with running(http=impatient()) as server, connected(server.port) as (reader, writer):
        dropped = asyncio.ensure_future(reader.read())
        for byte in request_head("GET /echo HTTP/1.1", *UPGRADE)[:-2] * 100:
            if dropped.done():
                break
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)
        assert dropped.done()
        await until(lambda: not server.protocols)


async def test_b30_who_has_shaken_hands_has_all_the_time():
    async with running(http=impatient()) as server:
        async with raw_socket(server.port, "/echo") as client:
            await asyncio.sleep(2 * TIMEOUT_S)
            await client.write(frame(TEXT, b"still there"))
            assert await client.frame() == (0x80 | TEXT, b"still there")


async def test_the_body_of_a_request_may_take_longer():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while (message := await receive()).get("more_body"):
            size += len(message["body"])
        body = str(size + len(message["body"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": body})

    async with running(app=app, http=impatient(), lifespan="off") as server, connected(server.port) as (reader, writer):
        writer.write(request_head("POST / HTTP/1.1", "Content-Length: 2\r\n") + b"x")
        await asyncio.sleep(2 * TIMEOUT_S)
        writer.write(b"x")
        assert (await answer(reader)).split()[1] == b"200"


@pytest.mark.parametrize("http", ["auto", "h11"])
async def test_so_may_a_body_that_is_answered_before_it_is_there(http: str, monkeypatch: pytest.MonkeyPatch):
    """A refused upload: the client that goes on sending keeps its connection, and reads the answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    if http == "h11":
        monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", H11Protocol)
    async with running(app=app, http=impatient(), lifespan="off") as server, connected(server.port) as (reader, writer):
        writer.write(request_head("POST / HTTP/1.1", "Content-Length: 2\r\n"))
        assert (await answer(reader)).split()[1] == b"413"
        writer.write(b"x")
        await asyncio.sleep(2 * TIMEOUT_S)
        writer.write(b"x" + request_head("GET / HTTP/1.1"))
        assert (await answer(reader)).split()[1] == b"413"
        writer.write(b"GE")
        async with asyncio.timeout(3):
            await reader.read()
