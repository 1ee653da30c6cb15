"""What a delivery costs, in counts: writes for each tick, encodes for each message, tasks for each connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from jararaca_ws import preparing as preparing_module
from jararaca_ws.wire.protocol import encode
from tests.server.running import FAST, PLAIN, Note, Running, raw_socket, running, until


class Writes:
    """Counts the writes of every transport of a server."""

    def __init__(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: dict[int, list[int]] = {}
        for number, protocol in enumerate(server.protocols):
            self.sizes[number] = []
            transport = _Counting(protocol.transport, self.sizes[number])
            monkeypatch.setattr(protocol, "transport", transport)
            monkeypatch.setattr(protocol, "write_frames", transport.write)

        for connection in server.connections:  # they have the writers from before
            connection.direct = None
            connection.wake()

    @property
    def counts(self) -> list[int]:
        return [len(sizes) for sizes in self.sizes.values()]


class _Counting:
    def __init__(self, transport: Any, sizes: list[int]) -> None:
        self._transport = transport
        self._sizes = sizes

    def write(self, data: bytes) -> None:
        self._sizes.append(len(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_frames_of_one_tick_are_one_write_for_each_connection(monkeypatch: pytest.MonkeyPatch):
    async with running() as server:
        clients = [await connect(server.url("/room/a"), compression=None) for _ in range(5)]
        await until(lambda: len(server.manager.members("a")) == 5)
        await asyncio.sleep(0)
        writes = Writes(server, monkeypatch)
        await asyncio.sleep(0)
        before = server.manager.flusher.ticks
        for n in range(20):
            await server.manager.send(["a"], Note(n=n))  # the memory backend delivers without a turn of the loop
        assert writes.counts == [0] * 5
        await asyncio.sleep(0)
        assert writes.counts == [1] * 5
        assert server.manager.flusher.ticks == before + 1
        for client in clients:
            got = [json.loads(await client.recv())["message"]["n"] for _ in range(20)]
            assert got == list(range(20))
            await client.close()


async def test_a_lone_message_leaves_in_the_same_turn(monkeypatch: pytest.MonkeyPatch):
    async with running() as server, raw_socket(server.port, "/room/a"):
        await until(lambda: server.manager.members("a"))
        await asyncio.sleep(0)
        writes = Writes(server, monkeypatch)
        await asyncio.sleep(0)
        await server.manager.send(["a"], Note(n=1))
        await asyncio.sleep(0)  # one turn, no more
        assert writes.counts == [1]


async def test_a_message_is_encoded_once(monkeypatch: pytest.MonkeyPatch):
    encoded = []

    def counting(message: Any) -> Any:
        encoded.append(message)
        return encode(message)

    async with running() as server:
        clients = [await connect(server.url("/room/a"), compression=None) for _ in range(4)]
        await until(lambda: len(server.manager.members("a")) == 4)
        monkeypatch.setattr(preparing_module, "encode", counting)
        await server.manager.send(["a"], Note(n=1))
        for client in clients:
            assert json.loads(await client.recv())["message"]["n"] == 1
            await client.close()
        assert len(encoded) == 1


@pytest.mark.parametrize(("protocol", "count"), [pytest.param(FAST, 2, id="fast"), pytest.param(PLAIN, 3, id="plain")])
async def test_tasks_of_a_connection(protocol: Any, count: int):
    """uvicorn's, with the handler in it; the pump; and, without the fast path, the writer's."""
    async with running(protocol) as server:
        before = asyncio.all_tasks()
        async with raw_socket(server.port, "/room/a") as client:
            await until(lambda: server.manager.members("a"))
            mine = asyncio.all_tasks() - before
            assert len(mine) == count
            await client.write(b"\x88\x80\x00\x00\x00\x00")
            await client.ended()
            await until(lambda: all(task.done() for task in mine))


async def test_the_same_frames_in_the_same_order_without_the_extension():
    got = []
    for protocol in (FAST, PLAIN):
        async with running(protocol) as server, raw_socket(server.port, "/mixed/a") as client:
            await until(lambda server=server: server.manager.members("a"))
            await client.write(b"\x81\x80\x00\x00\x00\x00")
            got.append([await client.frame() for _ in range(200)])
    assert got[0] == got[1]
    assert [json.loads(data)["message"]["n"] for _, data in got[0]] == list(range(200))


async def test_a_long_queue_holds_up_nobody():
    """A connection that gets a megabyte and one that gets a line, in one tick: the line does not wait for it."""
    async with running() as server:
        async with raw_socket(server.port, "/room/long") as long, raw_socket(server.port, "/room/short") as short:
            await until(lambda: len(server.connections) == 2 and server.manager.members("long"))
            await until(lambda: server.manager.members("short"))
            for _ in range(30):
                await server.manager.send(["long"], Note(text="x" * 30_000))
            await server.manager.send(["short"], Note(n=1))
            (connection,) = server.manager.members("long")
            assert json.loads((await short.frame())[1])["message"]["n"] == 1
            assert len(connection.outbound) > 0, "the long queue was not written in one go"
            for _ in range(30):
                assert len((await long.frame())[1]) > 30_000
