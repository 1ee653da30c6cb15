"""Which signals are taken over, and that each comes to whoever handled it before, once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.draining import drained_on_signals
from jararaca_ws.sockets.writing import DIRECT_FRAMES
from tests.unit.played import turns, until

LONG = timedelta(hours=1)


class Server:
    """What has handled the signals before."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def handle(self, signum: int, frame: Any) -> None:
        self.got.append(signum)


@pytest.fixture
def server() -> Iterator[Server]:
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    server = Server()
    for signum in before:
        signal.signal(signum, server.handle)
    yield server
    assert signal.getsignal(signal.SIGTERM) == server.handle, "it was given back"
    assert signal.getsignal(signal.SIGINT) == server.handle
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def manager() -> WebSocketConnectionManager:
    return WebSocketConnectionManager(MemoryWebSocketConnectionBackend())


async def connected(manager: WebSocketConnectionManager, **scope: Any) -> WebSocketConnection:
    """A connection that closes as soon as it is told to."""
    connection = WebSocketConnection({"type": "websocket", **scope})
    connection.open(None)
    connection.on_closing = lambda: connection.finish(1000, "")
    await manager.add_websocket(connection)
    return connection


async def test_the_server_gets_its_signal_when_the_sockets_have_closed(
    server: Server, manager: WebSocketConnectionManager
):
    connections = [await connected(manager) for _ in range(3)]
    async with drained_on_signals(manager, timedelta(seconds=0.1)):
        signal.raise_signal(signal.SIGTERM)
        assert manager.draining
        await turns()
        assert sum(connection.alive for connection in connections) == 2, "the others have their moments later"
        assert server.got == []
        await until(lambda: server.got)
        assert server.got == [signal.SIGTERM]
        assert {connection.close_code for connection in connections} == {1012}


async def test_the_same_signal_again_is_passed_on_at_once_and_another_one_is_not(
    server: Server, manager: WebSocketConnectionManager
):
    for _ in range(2):
        await connected(manager)
    async with drained_on_signals(manager, LONG):
        signal.raise_signal(signal.SIGINT)
        await turns()
        signal.raise_signal(signal.SIGTERM)
        assert server.got == []
        signal.raise_signal(signal.SIGINT)
        assert server.got == [signal.SIGINT]
        signal.raise_signal(signal.SIGTERM)
        assert server.got == [signal.SIGINT, signal.SIGTERM], "they are the server's from then on"


async def test_a_second_signal_before_the_loop_has_turned(server: Server, manager: WebSocketConnectionManager):
    connection = await connected(manager)
    async with drained_on_signals(manager, LONG):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert server.got == [signal.SIGTERM]
        await turns()
        assert connection.alive, "the server closes it"


@pytest.mark.parametrize("extensions", [None, {DIRECT_FRAMES: object()}])
async def test_it_is_passed_on_at_once_where_there_is_nothing_to_drain(
    server: Server, manager: WebSocketConnectionManager, extensions: dict[str, Any] | None
):
    """No socket, or one of a server that drains by itself: it must not happen twice."""
    if extensions is not None:
        await connected(manager, extensions=extensions)
    async with drained_on_signals(manager, LONG):
        signal.raise_signal(signal.SIGTERM)
        assert server.got == [signal.SIGTERM]
        assert manager.draining


async def test_a_stalled_reader_does_not_hold_it_up(server: Server, manager: WebSocketConnectionManager):
    connection = await connected(manager)
    connection.on_closing = lambda: None
    async with drained_on_signals(manager, timedelta(0)):
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: server.got)
        assert not connection.closed.is_set()


async def test_the_lifespan_may_end_while_it_drains(server: Server, manager: WebSocketConnectionManager):
    for _ in range(2):
        await connected(manager)
    async with drained_on_signals(manager, LONG):
        signal.raise_signal(signal.SIGTERM)
        await turns()
    assert server.got == [], "whoever has ended the lifespan needs no signal"
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "websocket-drain"] == []


async def test_one_that_somebody_else_has_taken_over_is_passed_on(server: Server, manager: WebSocketConnectionManager):
    seen = []
    async with drained_on_signals(manager, LONG):
        ours: Any = signal.getsignal(signal.SIGTERM)

        def another(signum: int, frame: Any) -> None:
            seen.append(signum)
            ours(signum, frame)

        signal.signal(signal.SIGTERM, another)
    assert signal.getsignal(signal.SIGTERM) == another, "it is theirs"
    signal.raise_signal(signal.SIGTERM)
    assert seen == server.got == [signal.SIGTERM]


async def test_two_applications_that_end_in_the_order_in_which_they_began(
    server: Server, manager: WebSocketConnectionManager
):
    other = WebSocketConnectionManager(MemoryWebSocketConnectionBackend())
    first, second = drained_on_signals(manager, LONG), drained_on_signals(other, LONG)
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    signal.raise_signal(signal.SIGINT)
    assert server.got == [signal.SIGINT]
    await second.__aexit__(None, None, None)
    signal.raise_signal(signal.SIGTERM)
    assert server.got == [signal.SIGINT, signal.SIGTERM]


async def test_an_ignored_signal_stays_ignored(server: Server, manager: WebSocketConnectionManager):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    async with drained_on_signals(manager, LONG):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, server.handle)


async def test_a_signal_that_the_loop_handles_is_left_to_it(server: Server, manager: WebSocketConnectionManager):
    """As in `jararaca-ws worker`: it would get it at once and, after the drain, again."""
    loop = asyncio.get_running_loop()
    heard: list[int] = []
    loop.add_signal_handler(signal.SIGTERM, heard.append, signal.SIGTERM)
    await connected(manager)
    async with drained_on_signals(manager, timedelta(0)):
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: heard)
    loop.remove_signal_handler(signal.SIGTERM)
    signal.signal(signal.SIGTERM, server.handle)
    assert heard == [signal.SIGTERM]


async def test_outside_of_the_main_thread_nothing_happens(server: Server, manager: WebSocketConnectionManager):
    async def look() -> Any:
        async with drained_on_signals(manager, LONG):
            return signal.getsignal(signal.SIGTERM)

    assert await asyncio.to_thread(asyncio.run, look()) == server.handle
