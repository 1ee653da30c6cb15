"""F19-F22: clients that do not read, read too slowly, or have gone, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import encode
from tests.server.running import (
    CLOSE,
    FAST,
    PING,
    PLAIN,
    PONG,
    TEXT,
    Note,
    RawSocket,
    Running,
    frame,
    raw_socket,
    running,
    until,
)

SETTINGS = WebSocketSettings(
    max_queue_bytes=256 * 1024, write_timeout=timedelta(seconds=0.5), close_timeout=timedelta(seconds=0.3)
)
LIMIT_S = 0.8 + 1.0  # write_timeout + close_timeout, and a second for a busy machine
BIG = Note(text="x" * 30_000)


async def gone(server: Running, client: RawSocket, timeout_s: float = LIMIT_S) -> None:
    """Nothing is left of the client: in uvicorn, in the kernel's table of this process, in tasks and rooms."""
    port = client.port
    await until(lambda: port not in _ports(server), timeout_s, "uvicorn has let the socket go")
    await until(lambda: not server.kernel_sockets(port), 1, "the socket is closed")


def _ports(server: Running) -> list[int]:
    return [protocol.client[1] for protocol in server.protocols]


class Stalled:
    """A client in the room "a" that does not read, on a transport that takes no more."""

    def __init__(self, server: Running, client: RawSocket) -> None:
        self.server = server
        self.client = client
        (self.protocol,) = [one for one in server.protocols if one.client[1] == client.port]
        (self.connection,) = [one for one in server.connections if one.scope["client"][1] == client.port]

    async def fill(self) -> None:
        for _ in range(400):
            if not self.protocol.accepts_frames:
                return
            self.connection.enqueue(_frame(BIG))
            await asyncio.sleep(0)
        raise AssertionError("the transport took it all")

    async def fill_a_little(self) -> None:
        """Something stays in the transport, less than the high-water mark."""
        for _ in range(400):
            if self.protocol.transport.get_write_buffer_size():
                assert self.protocol.accepts_frames
                return
            self.connection.enqueue(_frame(Note(text="x" * 8_000)))
            await asyncio.sleep(0.001)
        raise AssertionError("the transport took it all")


def _frame(note: Note) -> Frame:
    return encode(note)


@asynccontextmanager
async def stalled(**options: Any) -> AsyncIterator[Stalled]:
    async with running(settings=SETTINGS, **options) as server:
        async with raw_socket(server.port, "/room/a", receive_buffer=4096) as client:
            await until(lambda: server.manager.members("a"))
            yield Stalled(server, client)
        await until(lambda: not server.server.server_state.tasks and not server.connections, what="no task is left")


async def test_f19_a_stalled_reader_is_aborted_after_the_write_timeout():
    async with stalled() as reader:
        await reader.fill()
        await gone(reader.server, reader.client)
        assert reader.connection.close_code == 4008
        assert reader.server.manager.counters.overflows == 1


async def test_f19_a_stalled_reader_is_aborted_when_its_queue_overflows():
    async with stalled() as reader:
        await reader.fill()
        while reader.connection.alive:
            await reader.server.manager.send(["a"], BIG)
        await gone(reader.server, reader.client)
        assert reader.connection.close_code == 4008
        assert reader.server.manager.counters.overflows == 1


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def stalled_wave(server: Running) -> tuple[int, list[Any]]:
    """Ten readers stall, their buffers and queues full of bytes of their own, and are dropped.

    Returns how many bytes waited for them, and what must not outlive them.
    """
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(raw_socket(server.port, "/room/a", receive_buffer=4096)) for _ in range(10)
        ]
        await until(lambda: len(server.manager.members("a")) == 10)
        readers = [Stalled(server, client) for client in clients]
        waiting = 0
        for reader in readers:
            await reader.fill()
        for reader in readers:
            while reader.connection.enqueue(_frame(BIG)):
                waiting += len(BIG.text)
        for client in clients:
            await gone(server, client, LIMIT_S + 2)
        left = [weakref.ref(one) for reader in readers for one in (reader.connection, reader.protocol)]
    await until(lambda: not server.server.server_state.tasks)
    return waiting, left


async def test_f19_the_memory_of_stalled_readers_comes_back():
    async with running(settings=SETTINGS) as server:
        await stalled_wave(server)
        gc.collect()
        before = resident_bytes()
        total = 0
        for _ in range(2):
            waiting, left = await stalled_wave(server)
            total += waiting
            await until(lambda: gc.collect() >= 0 and not [one for one in left if one() is not None])  # noqa: B023
        assert total > 3_000_000
        assert resident_bytes() - before < total / 2, "a leak would be all of it"
        assert not server.connections


async def test_f19_a_reader_that_wakes_up_in_time_reads_why():
    """4008 is attempted: a reader that comes back within the close timeout gets it, and no message after a hole."""
    async with stalled() as reader:
        await reader.fill()
        await until(lambda: not reader.connection.alive)
        got = []
        while (one := await reader.client.frame())[0] != 0x80 | CLOSE:
            got.append(one[0])
        assert set(got) == {0x80 | TEXT}
        assert one[1] == (4008).to_bytes(2) + b"slow consumer"


async def test_f19_the_others_get_everything_meanwhile():
    async with stalled() as reader:
        others = [await connect(reader.server.url("/room/a"), compression=None) for _ in range(3)]
        await until(lambda: len(reader.server.manager.members("a")) == 4)
        for n in range(200):
            await reader.server.manager.send(["a"], Note(text="x" * 10_000, n=n))
            got = [json.loads(await asyncio.wait_for(other.recv(), 1))["message"]["n"] for other in others]
            assert got == [n] * 3
        await gone(reader.server, reader.client)
        assert len(reader.server.manager.members("a")) == 3
        for other in others:
            await other.close()


async def test_f19_closed_by_us_with_less_than_the_high_water_mark_in_the_buffer():
    """It never was slow as far as we know; it must not hold its socket for ever."""
    async with stalled() as reader:
        await reader.fill_a_little()
        reader.connection.begin_close(4001, "shutdown")
        # The peer has uvicorn's ten seconds to answer the close frame, the buffer those of the close timeout.
        await gone(reader.server, reader.client, 10 + LIMIT_S)


@pytest.mark.parametrize("fill", ["fill", "fill_a_little"])
@pytest.mark.parametrize("said", ["close", "nonsense", "fin"])
async def test_f19_a_stalled_reader_that_ends_it_by_itself(said: str, fill: str):
    """Then uvicorn closes the transport, politely: it waits for what is in the buffer, and nobody reads that."""
    async with stalled() as reader:
        await getattr(reader, fill)()
        if said == "fin":
            reader.client.raw.shutdown(1)
        else:
            await reader.client.write(frame(CLOSE, b"\x03\xe8") if said == "close" else frame(3, b"x"))
        await gone(reader.server, reader.client, LIMIT_S + 2)


async def test_f20_a_reader_that_trickles_is_aborted():
    async with stalled() as reader:
        await reader.fill()

        async def trickle() -> None:
            while await reader.client.read(1):  # noqa: ASYNC110 - the pace is the point
                await asyncio.sleep(0.1)

        trickling = asyncio.create_task(trickle())
        try:
            await gone(reader.server, reader.client)
        finally:
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)


async def test_f20_trickling_while_more_is_sent():
    async with stalled() as reader:

        async def trickle() -> None:
            while await reader.client.read(1):  # noqa: ASYNC110 - the pace is the point
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        try:
            await reader.fill()
            for _ in range(10):
                await reader.server.manager.send(["a"], Note(text="x" * 5_000))
                await asyncio.sleep(0.02)
            await gone(reader.server, reader.client)
        finally:
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)


@pytest.mark.parametrize("fill", [None, "fill_a_little", "fill"])
async def test_f21_a_peer_that_vanishes(fill: str | None):
    """It answers no ping, and sends no FIN; its buffers may be full."""
    settings = {"ws_ping_interval": 0.5, "ws_ping_timeout": 0.5}
    async with stalled(**settings) as reader:
        if fill is not None:
            await getattr(reader, fill)()
        await gone(reader.server, reader.client, 1.0 + 2.0)
        await until(lambda: not reader.server.manager.members("a"))


async def test_f21_a_peer_that_vanishes_while_we_close():
    async with stalled(ws_ping_interval=0.5, ws_ping_timeout=0.5) as reader:
        await reader.fill()
        reader.connection.begin_close(4001, "shutdown")
        await gone(reader.server, reader.client, LIMIT_S + 1)


@pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
async def test_f22_a_half_close_is_a_disconnect(protocol: Any):
    async with running(protocol) as server, raw_socket(server.port, "/room/a") as client:
        await until(lambda: server.manager.members("a"))
        client.raw.shutdown(1)
        await client.ended()
        await until(lambda: not server.connections and not server.server.server_state.tasks)


@pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
async def test_f23_a_handler_that_raises(protocol: Any, caplog: pytest.LogCaptureFixture):
    async with running(protocol) as server, raw_socket(server.port, "/fail") as client:
        first, payload = await client.frame()
        assert first == 0x80 | CLOSE
        assert payload[:2] == (1011).to_bytes(2)
        assert payload[2:].startswith(b"error ")
        assert b"secret" not in payload
    (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert payload[8:].decode() in logged.getMessage()


@pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
async def test_f24_a_handler_that_never_reads(protocol: Any):
    """Its client says a lot, and answers pings behind that: it is healthy."""
    settings = WebSocketSettings(read_patience=timedelta(seconds=0.1))
    async with running(protocol, settings=settings, ws_ping_interval=0.2, ws_ping_timeout=0.4) as server:
        async with connect(server.url("/idle"), compression=None) as client:
            await until(lambda: server.connections)
            connection: WebSocketConnection = server.connections[0]
            for _ in range(5):
                for _ in range(40):
                    await client.send("hello")
                await asyncio.sleep(0.2)
            assert connection.alive
            assert connection.enqueue(_frame(Note(n=1)))
            assert json.loads(await client.recv())["message"]["n"] == 1


@pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
async def test_b32_who_sends_while_the_handler_is_busy_is_read_no_more(protocol: Any):
    """What it has sent beyond the queue stays in the kernel's buffers; what is sent to it arrives."""
    data = frame(TEXT, b"x" * 16_000) * 16
    async with running(protocol) as server, raw_socket(server.port, "/busy/a") as client:
        await until(lambda: server.manager.members("a"))
        written = 0
        with suppress(TimeoutError):
            while written < 64 * 1024 * 1024:
                async with asyncio.timeout(1):
                    await client.write(data)
                written += len(data)
        assert written < 32 * 1024 * 1024
        (waiting,) = server.protocols
        assert waiting.read_paused
        (connection,) = server.connections
        assert connection.inbound.size <= connection.settings.max_inbound_bytes
        await server.manager.send(["a"], Note(n=1))
        assert json.loads((await client.frame())[1])["message"]["n"] == 1


async def test_f21_a_client_that_goes_while_its_handler_is_busy_and_its_queue_is_full():
    """The reading task waits for the handler, and must learn all the same that the client has gone: no ghost stays in
    the room, and the handler gets its grace and is cancelled.

    ASGI alone cannot say so before the queued messages are read: under another server the connection goes when its
    handler reads on, or when something is sent to it (docs/deployment.md).
    """
    settings = WebSocketSettings(max_inbound_messages=4, handler_grace=timedelta(seconds=0.2))
    async with running(FAST, settings=settings, ws_ping_interval=0.3, ws_ping_timeout=0.3) as server:
        async with raw_socket(server.port, "/busy/a") as client:
            await until(lambda: server.manager.members("a"))
            for _ in range(10):
                await client.write(frame(TEXT, b"x"))
        await until(lambda: not server.protocols, 3, "uvicorn has noticed")
        await until(lambda: not server.manager.members("a"), 2, "the connection has left its room")
        await until(lambda: not server.server.server_state.tasks, 2, "no task is left")


async def test_a_ping_from_a_stalled_reader_changes_nothing():
    async with stalled() as reader:
        await reader.fill()
        for _ in range(20):
            await reader.client.write(frame(PING, b"x" * 125))
        await gone(reader.server, reader.client)


async def test_the_newest_ping_is_answered_when_a_stalled_reader_reads_again():
    """RFC 6455, 5.5.3: of several pings the most recent one may be the only one that is answered, but it must be."""
    async with stalled() as reader:
        await reader.fill()
        for number in range(20):
            await reader.client.write(frame(PING, b"ping %d" % number))
        await until(lambda: reader.protocol._pong.endswith(b"ping 19"))
        pongs = []
        await reader.client.write(frame(PING, b"the last"))
        while not pongs or pongs[-1] != b"the last":
            first, payload = await reader.client.frame()
            assert first in (0x80 | TEXT, 0x80 | PONG)
            if first == 0x80 | PONG:
                pongs.append(payload)
        assert pongs in ([b"the last"], [b"ping 19", b"the last"])


async def test_a_close_behind_a_ping_is_answered_on_a_full_transport():
    async with stalled() as reader:
        await reader.fill()
        await reader.client.write(frame(PING, b"x") + frame(CLOSE, (1000).to_bytes(2)))
        assert await reader.client.close_code() == 1000


async def test_a_flood_of_pings_from_a_reader_that_does_not_read_is_bounded():
    """uvicorn writes a pong for each, whatever the buffer holds: P4 bounds the memory of one socket."""
    async with stalled() as reader:
        most = 0
        pings = frame(PING, b"x" * 125) * 200
        try:
            async with asyncio.timeout(3):
                for _ in range(400):  # 10 MB of pongs
                    await reader.client.write(pings)
                    await asyncio.sleep(0)
                    most = max(most, reader.protocol.transport.get_write_buffer_size())
        except (TimeoutError, OSError):
            most = max(most, reader.protocol.transport.get_write_buffer_size())
        assert most < 1024 * 1024
