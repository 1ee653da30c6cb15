"""The fault proxy over real sockets: what it passes on, and what each fault looks like from both sides."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from jararaca_ws.testing import FaultProxy

LIMIT_S = 5.0
QUIET_S = 0.15
"""Long enough for anything on the loopback to arrive."""


@dataclass
class Server:
    """Answers each line with the line; what it has read and how its connections ended is written down."""

    port: int
    lines: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)
                await writer.drain()
            self.ends.append("fin")
        except ConnectionResetError:
            self.ends.append("rst")
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    echo = Server(0)
    async with await asyncio.start_server(echo.handle, "127.0.0.1", 0) as listening:
        echo.port = listening.sockets[0].getsockname()[1]
        yield echo
        await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.port) as proxy:
        yield proxy
        proxy.heal()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110  # no event announces it
            await asyncio.sleep(0.005)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readexactly(count)

    async def ask(self, line: bytes) -> bytes:
        self.say(line)
        return await self.hear(len(line))

    async def end(self) -> bytes:
        """Read to the end, which must come."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read()

    async def silence(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), QUIET_S)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_it_passes_everything_on_in_both_directions(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        lines = b"".join(b"%d " % n + b"x" * 1000 + b"\n" for n in range(2000))
        client.say(lines)
        assert await client.hear(len(lines)) == lines
        assert (proxy.accepted, proxy.connections) == (1, 1)
    await until(lambda: not proxy.connections)
    assert server.ends == ["fin"]


async def test_a_half_close_stays_one(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        client.say(b"last\n")
        client.writer.write_eof()
        assert await client.end() == b"last\n"
    await until(lambda: not proxy.connections)


async def test_cut_ends_both_sides_in_the_orderly_way_and_new_connections_pass(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.cut()
        assert await client.end() == b""
        await until(lambda: server.ends == ["fin"])
    async with connected(proxy.port) as client:
        assert await client.ask(b"2\n") == b"2\n"


async def test_reset_breaks_both_sides(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await client.end()
        await until(lambda: server.ends == ["rst"])


async def test_in_a_black_hole_there_is_silence_and_after_it_everything_flows_on(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.blackhole()
        client.say(b"2\n")
        async with connected(proxy.port) as new:
            new.say(b"new\n")
            await client.silence()
            await new.silence()
            assert server.lines == [b"1\n"]
            proxy.heal()
            assert await client.hear(2) == b"2\n"
            assert await new.hear(4) == b"new\n"


async def test_a_black_hole_swallows_the_end_of_a_connection(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.blackhole()
    await asyncio.sleep(QUIET_S)
    assert server.ends == []
    proxy.heal()
    await until(lambda: server.ends == ["fin"])


async def test_a_black_hole_of_one_direction_lets_the_other_pass(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.blackhole("to_client")
        client.say(b"2\n")
        await until(lambda: server.lines == [b"1\n", b"2\n"])
        await client.silence()
        proxy.heal()
        assert await client.hear(2) == b"2\n"


async def test_a_sender_into_a_black_hole_is_held_up_soon(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        proxy.blackhole()
        sent = 0
        try:
            while sent < 10_000_000:
                client.say(b"x" * 10_000)
                await asyncio.wait_for(client.writer.drain(), QUIET_S)
                sent += 10_000
        except TimeoutError:
            pass
        assert sent < 1_000_000


@pytest.mark.parametrize("fault", [FaultProxy.cut, FaultProxy.reset])
async def test_a_connection_in_a_black_hole_can_be_ended(server: Server, proxy: FaultProxy, fault: Callable[..., None]):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.blackhole()
        client.say(b"2\n")
        async with connected(proxy.port) as new:
            await until(lambda: proxy.connections == 2)
            await client.silence()
            client.say(b"3\n")  # the proxy has not read this when it ends the connection
            await new.silence()
            fault(proxy)
            await until(lambda: not proxy.connections)
            for one in (client, new):
                try:
                    assert await one.end() == b""
                except ConnectionResetError:
                    assert fault is FaultProxy.reset
    assert server.lines == [b"1\n"]


async def test_delay_holds_what_comes_until_it_is_healed(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        loop = asyncio.get_running_loop()
        proxy.delay(0.1)
        before = loop.time()
        assert await client.ask(b"1\n") == b"1\n"
        assert loop.time() - before >= 0.2  # once in each direction
        proxy.delay(3600, "to_client")
        client.say(b"2\n")
        await until(lambda: b"2\n" in server.lines)
        await client.silence()
        proxy.heal()
        assert await client.hear(2) == b"2\n"


async def test_trickle_passes_on_little_by_little_until_it_is_healed(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        proxy.trickle(40, "to_client")
        loop = asyncio.get_running_loop()
        before = loop.time()
        line = b"x" * 2000 + b"\n"
        client.say(line)
        first = await client.hear(9)
        assert loop.time() - before >= 0.15  # the ninth byte follows four pairs
        proxy.heal()
        assert first + await client.hear(len(line) - 9) == line


def test_a_trickle_of_nothing_is_refused():
    with pytest.raises(ValueError, match="blackhole"):
        FaultProxy(1).trickle(0)


async def test_a_lost_reply_is_one_that_the_server_has_given(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        proxy.drop_replies()
        await client.silence()
        client.say(b"2\n")
        assert await client.end() == b""
        assert server.lines == [b"1\n", b"2\n"]
        assert proxy.lost_replies == 1
    async with connected(proxy.port) as client:  # it lasts
        client.say(b"3\n")
        assert await client.end() == b""
    proxy.heal()
    async with connected(proxy.port) as client:
        assert await client.ask(b"4\n") == b"4\n"


async def test_a_reset_of_one_side_reaches_the_other(server: Server, proxy: FaultProxy):
    async with connected(proxy.port) as client:
        await client.ask(b"1\n")
        raw = client.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: server.ends == ["rst"] and not proxy.connections)


async def test_a_server_that_is_not_there_is_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with FaultProxy(port) as proxy, connected(proxy.port) as client:
        with pytest.raises(ConnectionResetError):
            await client.end()


@pytest.mark.parametrize("fault", [FaultProxy.blackhole, FaultProxy.heal])
async def test_leaving_ends_every_connection_and_every_task(server: Server, fault: Callable[[FaultProxy], None]):
    before = asyncio.all_tasks()
    async with FaultProxy(server.port) as proxy:
        port = proxy.port
        async with connected(port) as client:
            await client.ask(b"1\n")
            fault(proxy)
            waiting = await asyncio.open_connection("127.0.0.1", port)
            client.say(b"2\n")
            await until(lambda: proxy.connections == 2)
            await proxy.__aexit__(None, None, None)
            assert proxy.connections == 0
            await until(lambda: asyncio.all_tasks() <= before)
            waiting[1].close()
    with pytest.raises(RuntimeError, match="async with"):
        _ = proxy.port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_cancelled_leaving_is_cancelled(server: Server):
    async def use() -> None:
        async with FaultProxy(server.port) as proxy, connected(proxy.port) as client:
            await client.ask(b"1\n")
            await asyncio.Event().wait()

    using = asyncio.create_task(use())
    await until(lambda: server.lines)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
