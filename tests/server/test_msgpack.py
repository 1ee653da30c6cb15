"""msgpack on a real server: next to JSON in one room, compressed and not, on the fast path and without it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from jararaca_ws.wire import frames
from tests.server.running import FAST, PLAIN, running, until
from tests.server.test_deflate import numbered, numbers

BOTH = pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])
PACKED: Any = {"subprotocols": [Subprotocol("jararaca.v1.msgpack"), Subprotocol("jararaca.v1")]}


async def packed_numbers(client: ClientConnection, count: int) -> list[int]:
    async with asyncio.timeout(10):
        return [msgpack.unpackb(await client.recv(decode=False))["message"]["n"] for _ in range(count)]


@BOTH
async def test_clients_with_and_without_it_get_the_same(protocol: Any, monkeypatch: pytest.MonkeyPatch):
    packed: list[bytes] = []
    pack = frames.pack
    monkeypatch.setattr(frames, "pack", lambda data: packed.append(data) or pack(data))
    async with running(protocol, ws_per_message_deflate=True) as server:
        url = server.url("/room/a")
        text = [await connect(url, compression=compression) for compression in (None, "deflate")]
        binary = [await connect(url, compression=compression, **PACKED) for compression in (None, "deflate", None)]
        assert [client.subprotocol for client in binary] == ["jararaca.v1.msgpack"] * 3
        await until(lambda: len(server.manager.members("a")) == 5)
        for n in range(200):
            await server.manager.send(["a"], numbered(n))
            if n % 7 == 0:
                await asyncio.sleep(0)
        for client in text:
            assert await numbers(client, 200) == list(range(200))
        for client in binary:
            assert await packed_numbers(client, 200) == list(range(200))
        assert len(packed) == 200
        for client in text + binary:
            await client.close()


@BOTH
async def test_what_a_client_sends(protocol: Any):
    async with running(protocol) as server, connect(server.url("/echo"), **PACKED) as client:
        await client.send(msgpack.packb({"a": [1, "é", None, 0.5]}))
        assert msgpack.unpackb(await client.recv(decode=False)) == {"a": [1, "é", None, 0.5]}
        await client.send("{}")
        with pytest.raises(ConnectionClosedError) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1003
