"""F19-F22: clients that do not read, read too slowly, or have gone, over real sockets."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.connection import ConnectionSettings
from tests.server.running import CLOSE, FAST, PLAIN, Note, RawSocket, Running, frame, raw_socket, running, until

SETTINGS = ConnectionSettings(
    max_queue_bytes=256 * 1024, write_timeout=timedelta(seconds=0.5), close_timeout=timedelta(seconds=0.3)
)
LIMIT_S = 0.8 + 1.0  # write_timeout + close_timeout, and a second for a busy machine

big = Note(text="x" * 30_000)


async def fill(server: Running, room: str, client: RawSocket) -> None:
    """Send to the room until the transport of its one connection is full."""
    (connection,) = server.manager.members(room)
    frames = connection.scope["extensions"]["jararaca_ws.frames"]
    for _ in range(400):
        if not frames.accepts_frames:
            return
        await server.manager.send([room], big)
        await asyncio.sleep(0)
    raise AssertionError("the transport took it all")


async def gone(server: Running, client: RawSocket, timeout_s: float = LIMIT_S) -> None:
    await until(lambda: not server.protocols, timeout_s, "uvicorn has let it go")
    await until(lambda: not server.kernel_sockets(client.port), 1, "the socket is closed")
    await until(lambda: not server.server.server_state.tasks, 1, "no task is left")


async def test_F19_write_timeout_aborts_a_stalled_reader():
    async with running(settings=SETTINGS) as server, raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
        await until(lambda: server.manager.members("a"))
        await fill(server, "a", client)
        await gone(server, client)


async def test_F19_overflow_aborts_a_stalled_reader():
    async with running(settings=SETTINGS) as server, raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
        await until(lambda: server.manager.members("a"))
        await fill(server, "a", client)
        (connection,) = server.connections
        while connection.alive:
            await server.manager.send(["a"], big)
        await gone(server, client)


async def test_F19_closed_by_the_server_with_less_than_the_high_water_mark_buffered():
    async with running(settings=SETTINGS) as server, raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
        await until(lambda: server.manager.members("a"))
        (connection,) = server.connections
        (protocol,) = server.protocols
        while not protocol.transport.get_write_buffer_size():
            await server.manager.send(["a"], Note(text="x" * 10_000))
            await asyncio.sleep(0)
        assert protocol.accepts_frames
        connection.begin_close(4001, "shutdown")
        await gone(server, client, 12)


async def test_a_stalled_reader_that_says_goodbye_is_aborted():
    async with running(settings=SETTINGS) as server, raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
        await until(lambda: server.manager.members("a"))
        await fill(server, "a", client)
        await client.write(frame(CLOSE, b"\x03\xe8"))
        await gone(server, client, 5)


async def test_a_stalled_reader_that_breaks_the_protocol_is_aborted():
    async with running(settings=SETTINGS) as server, raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
        await until(lambda: server.manager.members("a"))
        await fill(server, "a", client)
        await client.write(frame(3, b"x"))
        await gone(server, client, 5)
