"""B1-B6: what a client may put on the wire, and what it gets for it; the same with the fast path and without."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server.running import (
    BINARY,
    CLOSE,
    CONT,
    FAST,
    MAX_SIZE,
    PING,
    PLAIN,
    PONG,
    TEXT,
    RawSocket,
    Running,
    frame,
    raw_socket,
    running,
    until,
)

PATHS = pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


HUGE = frame(TEXT)[:1] + bytes((0x80 | 127,)) + (2**63).to_bytes(8) + bytes(4)
PART = b"x" * (MAX_SIZE // 2)

# name -> what is written, and the close code.
REFUSED: dict[str, tuple[bytes, int]] = {
    "B1 one frame over the maximum": (frame(TEXT, b"x" * (MAX_SIZE + 1)), 1009),
    "B1 a binary frame over the maximum": (frame(BINARY, b"x" * (MAX_SIZE + 1)), 1009),
    "B1 fragments over the maximum": (
        frame(TEXT, PART, fin=False) + frame(CONT, PART, fin=False) + frame(CONT, b"x"),
        1009,
    ),
    "B3 a declared length of 2^63": (HUGE, 1009),
    "B4 invalid UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "B4 UTF-8 cut short": (frame(TEXT, "é".encode()[:1]), 1007),
    "B4 a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "B4 invalid UTF-8 in fragments": (frame(TEXT, b"a", fin=False) + frame(CONT, b"\xff"), 1007),
    "B5 unmasked text": (frame(TEXT, b"x", mask=False), 1002),
    "B5 unmasked ping": (frame(PING, b"x", mask=False), 1002),
    "B5 RSV1 without compression": (frame(TEXT, b"x", rsv=4), 1002),
    "B5 RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "B5 RSV3": (frame(TEXT, b"x", rsv=1), 1002),
    "B5 RSV1 of a ping": (frame(PING, b"x", rsv=4), 1002),
    "B5 opcode 3": (frame(3, b"x"), 1002),
    "B5 opcode 11": (frame(11, b"x"), 1002),
    "B5 a lone continuation": (frame(CONT, b"x"), 1002),
    "B5 a text between fragments": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "B5 a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "B5 a fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "B5 a fragmented close": (frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "B6 a close payload of one byte": (frame(CLOSE, b"\x03"), 1002),
    "B6 close code 1005": (frame(CLOSE, (1005).to_bytes(2)), 1002),
    "B6 close code 1006": (frame(CLOSE, (1006).to_bytes(2)), 1002),
    "B6 close code 999": (frame(CLOSE, (999).to_bytes(2)), 1002),
    "B6 a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.fixture
async def server(request: pytest.FixtureRequest, protocol: Any) -> AsyncIterator[Running]:
    async with running(protocol) as server:
        yield server


async def settled(server: Running) -> None:
    """Nothing is left of the socket: no protocol, no task, no connection."""
    await until(lambda: not (server.protocols or server.server.server_state.tasks or server.connections))


def _of_row(row: str) -> pytest.MarkDecorator:
    names = [name for name in REFUSED if name.startswith(f"{row} ")]
    return pytest.mark.parametrize("name", names)


async def _is_refused(name: str, server: Running, caplog: pytest.LogCaptureFixture) -> None:
    written, code = REFUSED[name]
    async with raw_socket(server.port, "/echo") as client:
        await client.write(written)
        assert await client.close_code() == code
        await client.ended()
        await settled(server)
    # uvicorn by itself logs a traceback for what is not UTF-8.
    names = ["jararaca_ws"] if server.protocol is PLAIN else ["jararaca_ws", "uvicorn.error", "asyncio"]
    assert [one for one in caplog.records if one.name in names and one.levelno > logging.INFO] == []


@PATHS
@_of_row("B1")
async def test_b1_too_large(name: str, server: Running, caplog: pytest.LogCaptureFixture):
    await _is_refused(name, server, caplog)


@PATHS
@_of_row("B3")
async def test_b3_a_length_that_cannot_be(name: str, server: Running, caplog: pytest.LogCaptureFixture):
    await _is_refused(name, server, caplog)


@PATHS
@_of_row("B4")
async def test_b4_no_utf8(name: str, server: Running, caplog: pytest.LogCaptureFixture):
    await _is_refused(name, server, caplog)


@PATHS
@_of_row("B5")
async def test_b5_frames_that_break_the_protocol(name: str, server: Running, caplog: pytest.LogCaptureFixture):
    await _is_refused(name, server, caplog)


@PATHS
@_of_row("B6")
async def test_b6_close_frames_that_are_none(name: str, server: Running, caplog: pytest.LogCaptureFixture):
    await _is_refused(name, server, caplog)


@PATHS
async def test_b2_a_compressed_bomb(protocol: Any):
    async with running(protocol, ws_per_message_deflate=True) as server:
        async with raw_socket(server.port, "/echo", offer="permessage-deflate") as client:
            bomb = _deflated(bytes(16 * 1024 * 1024))
            assert len(bomb) < MAX_SIZE
            await client.write(frame(TEXT, bomb, rsv=4))
            assert await client.close_code() == 1009
            await settled(server)


@PATHS
async def test_rsv1_within_a_compressed_message_and_of_a_continuation(protocol: Any):
    async with running(protocol, ws_per_message_deflate=True) as server:
        async with raw_socket(server.port, "/echo", offer="permessage-deflate") as client:
            data = _deflated(b"hello" * 20)
            await client.write(frame(TEXT, data[:4], rsv=4, fin=False) + frame(CONT, data[4:]))
            assert (await client.frame())[0] & 0x0F == TEXT
            await client.write(frame(TEXT, data[:4], rsv=4, fin=False) + frame(CONT, data[4:], rsv=4))
            assert await client.close_code() == 1002


@PATHS
async def test_what_does_not_inflate(protocol: Any):
    async with running(protocol, ws_per_message_deflate=True) as server:
        async with raw_socket(server.port, "/echo", offer="permessage-deflate") as client:
            await client.write(frame(TEXT, b"\xff\xff\xff", rsv=4))
            assert await client.close_code() == 1002
            await settled(server)


async def _echo(client: RawSocket, data: bytes) -> None:
    await client.write(frame(TEXT, data))
    assert await client.frame() == (0x80 | TEXT, data)


@PATHS
async def test_a_ping_gets_its_pong(server: Running):
    async with raw_socket(server.port, "/echo") as client:
        for payload in (b"", b"x", b"x" * 125):
            await client.write(frame(PING, payload))
            assert await client.frame() == (0x80 | PONG, payload)
        await _echo(client, b"still there")


@PATHS
async def test_a_ping_between_fragments_and_a_text_that_arrives_whole(server: Running):
    async with raw_socket(server.port, "/echo") as client:
        whole = "fragmented é".encode()
        await client.write(frame(TEXT, whole[:-1], fin=False) + frame(PING, b"p") + frame(CONT, b"", fin=False))
        assert await client.frame() == (0x80 | PONG, b"p")
        await client.write(frame(CONT, whole[-1:]))
        assert await client.frame() == (0x80 | TEXT, whole)


@PATHS
async def test_a_frame_that_arrives_byte_by_byte(server: Running):
    async with raw_socket(server.port, "/echo") as client:
        for byte in frame(TEXT, b"slow"):
            await client.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert await client.frame() == (0x80 | TEXT, b"slow")


@PATHS
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_every_form_of_the_length(server: Running, size: int):
    async with raw_socket(server.port, "/echo") as client:
        await _echo(client, b"x" * size)


@PATHS
async def test_an_unasked_pong_is_nothing(server: Running):
    async with raw_socket(server.port, "/echo") as client:
        await client.write(frame(PONG, b"x"))
        await _echo(client, b"still there")


@PATHS
@pytest.mark.parametrize(
    ("payload", "code"), [(b"\x03\xe8bye", 1000), ((4999).to_bytes(2), 4999), (b"", None)], ids=["1000", "4999", "none"]
)
async def test_a_normal_close_is_echoed(server: Running, payload: bytes, code: int | None):
    async with raw_socket(server.port, "/room/a") as client:
        await until(lambda: server.connections)
        (connection,) = server.connections
        await client.write(frame(CLOSE, payload))
        first, echoed = await client.frame()
        assert (first, echoed[:2]) == (0x80 | CLOSE, payload[:2])
        await client.ended()
        await settled(server)
        assert connection.close_code == (code or 1005)


@PATHS
async def test_b33_messages_after_our_close_are_discarded(server: Running, caplog: pytest.LogCaptureFixture):
    async with raw_socket(server.port, "/room/a") as client:
        await until(lambda: server.manager.members("a"))
        (connection,) = server.connections
        connection.begin_close(4001, "shutdown")
        assert (await client.frame()) == (0x80 | CLOSE, (4001).to_bytes(2) + b"shutdown")
        await client.write(frame(TEXT, b"late") * 100 + frame(PING, b"late"))
        await client.write(frame(CLOSE, (4001).to_bytes(2)))
        await client.ended()
        await settled(server)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@PATHS
async def test_a_close_and_the_echo_end_the_tcp_connection_at_once(server: Running):
    async with raw_socket(server.port, "/idle") as client:
        await until(lambda: server.connections)
        server.connections[0].begin_close(1000, "")
        assert await client.close_code() == 1000
        await client.write(frame(CLOSE, (1000).to_bytes(2)))
        await client.ended(2)  # not the ten seconds of a peer that does not answer
        await settled(server)


@PATHS
async def test_both_close_at_once(server: Running):
    async with raw_socket(server.port, "/room/a") as client:
        await until(lambda: server.connections)
        await client.write(frame(CLOSE, (1000).to_bytes(2)))
        server.connections[0].begin_close(4001, "")
        assert await client.close_code() in (1000, 4001)
        await client.ended(2)
        await settled(server)
