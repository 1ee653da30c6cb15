"""permessage-deflate: a frame is deflated once for all, and every client reads it."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

import pytest
from playwright.async_api import async_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from jararaca_ws.wire import frames as wire
from tests.e2e.test_page import FLAGS
from tests.server.running import FAST, PLAIN, TEXT, Note, Running, raw_socket, running, until

BOTH = pytest.mark.parametrize("protocol", [pytest.param(FAST, id="fast"), pytest.param(PLAIN, id="plain")])


def numbered(n: int) -> Note:
    """Now larger than what is worth compressing, now smaller."""
    return Note(text=f"{n} " * (150 if n % 3 else 1), n=n)


async def numbers(client: ClientConnection, count: int) -> list[int]:
    async with asyncio.timeout(10):
        return [json.loads(await client.recv())["message"]["n"] for _ in range(count)]


def offer(**parameters: Any) -> list[ClientPerMessageDeflateFactory]:
    return [ClientPerMessageDeflateFactory(**parameters)]


@pytest.mark.parametrize(
    ("offered", "window"),
    [
        ("permessage-deflate", 12),
        ("permessage-deflate; client_max_window_bits", 12),
        ("permessage-deflate; client_max_window_bits=10", 12),
        ("permessage-deflate; server_max_window_bits=9", 9),
        ("permessage-deflate; server_max_window_bits=10", 10),
        ("permessage-deflate; server_max_window_bits=15", 12),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", 12),
        ("permessage-deflate; server_max_window_bits=8", None),  # zlib has no such window
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", 12),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; unheard_of", None),
        ("x-webkit-deflate-frame", None),
        (None, None),
    ],
)
async def test_what_is_agreed_to(offered: str | None, window: int | None):
    async with running(ws_per_message_deflate=True) as server:
        async with raw_socket(server.port, "/room/a", offer=offered) as client:
            await until(lambda: server.manager.members("a"))
            (protocol,) = server.protocols
            assert protocol.window_bits == window
            await server.manager.send(["a"], Note(n=1))
            assert (await client.frame())[0] == 0x80 | TEXT, "a small frame goes as it is"
            await server.manager.send(["a"], Note(text="x" * 300))
            first, payload = await client.frame()
            if window is None:
                assert "sec-websocket-extensions" not in client.headers
                assert first == 0x80 | TEXT
            else:
                assert "server_no_context_takeover" in client.headers
                assert "client_no_context_takeover" in client.headers
                assert f"server_max_window_bits={window}" in client.headers
                assert first == 0xC0 | TEXT
                inflate = zlib.decompressobj(wbits=-window)
                payload = inflate.decompress(payload + b"\x00\x00\xff\xff")
            assert json.loads(payload)["message"]["text"] == "x" * 300


async def test_without_the_switch_nothing_is_agreed_to():
    async with running() as server, raw_socket(server.port, "/room/a", offer="permessage-deflate") as client:
        assert "sec-websocket-extensions" not in client.headers


@BOTH
async def test_clients_with_and_without_compression_get_the_same(protocol: Any):
    async with running(protocol, ws_per_message_deflate=True) as server:
        url = server.url("/room/a")
        offers: list[Any] = [
            {"compression": None},
            {"compression": "deflate"},
            {"compression": None, "extensions": offer(server_max_window_bits=9)},
            {"compression": None, "extensions": offer(server_max_window_bits=15, client_max_window_bits=15)},
            {"compression": None, "extensions": offer(server_no_context_takeover=True)},
        ]
        clients = [await connect(url, **options) for options in offers]
        await until(lambda: len(server.manager.members("a")) == len(clients))
        for n in range(200):
            await server.manager.send(["a"], numbered(n))
            if n % 7 == 0:
                await asyncio.sleep(0)
        for client in clients:
            assert await numbers(client, 200) == list(range(200))
        for client in clients:
            await client.close()


@BOTH
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_200_texts_of_a_handler_and_of_a_room_in_order(protocol: Any, compression: Any):
    async with running(protocol, ws_per_message_deflate=True) as server:
        async with connect(server.url("/mixed/a"), compression=compression) as client:
            await client.send("go")
            assert await numbers(client, 200) == list(range(200))


async def test_pongs_between_compressed_frames_of_a_room():
    """What uvicorn itself writes (pongs) and what we write share the transport, and no compression context."""
    async with running(ws_per_message_deflate=True) as server, connect(server.url("/room/a")) as client:
        await until(lambda: server.manager.members("a"))
        for n in range(0, 50, 10):
            for one in range(n, n + 10):
                await server.manager.send(["a"], numbered(one))
            await (await client.ping())
            assert await numbers(client, 10) == list(range(n, n + 10))


async def test_a_frame_is_deflated_once_for_each_window(monkeypatch: pytest.MonkeyPatch):
    made: list[int | None] = []
    make = wire._wire

    def counting(data: bytes, binary: bool, window_bits: int | None) -> bytes:
        made.append(window_bits)
        return make(data, binary, window_bits)

    async with running(ws_per_message_deflate=True) as server:
        options: list[Any] = [{"compression": "deflate"}] * 3 + [{"compression": None}] * 3
        options += [{"compression": None, "extensions": offer(server_max_window_bits=9)}] * 2
        clients = [await connect(server.url("/room/a"), **one) for one in options]
        await until(lambda: len(server.manager.members("a")) == len(clients))
        monkeypatch.setattr(wire, "_wire", counting)
        await server.manager.send(["a"], Note(text="x" * 1000, n=7))
        for client in clients:
            assert await numbers(client, 1) == [7]
        assert sorted(made, key=str) == [12, 9, None]
        for client in clients:
            await client.close()


async def _page(server: Running, chromium_path: str, path: str, count: int, say: str) -> list[int]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        page = await chromium.new_page()
        script = """([url, count, say]) => new Promise((done, failed) => {
            const socket = new WebSocket(url), got = [];
            socket.onopen = () => { if (say) socket.send(say); };
            socket.onmessage = event => {
                got.push(JSON.parse(event.data).message.n);
                if (got.length === count) done([socket.extensions, got]);
            };
            socket.onclose = event => failed(new Error(`closed with ${event.code} after ${got.length}`));
        })"""
        extensions, got = await page.evaluate(script, [server.url(path), count, say])
        await chromium.close()
        assert "permessage-deflate" in extensions
        return list(got)


@pytest.mark.browser
@BOTH
async def test_chromium_reads_them_mixed(protocol: Any, chromium_path: str):
    async with running(protocol, ws_per_message_deflate=True) as server:
        assert await _page(server, chromium_path, "/mixed/a", 200, "go") == list(range(200))
