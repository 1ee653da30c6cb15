"""Browsers behind a network that fails: one that is gone, one that is slow, and all the others."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.testing import FaultProxy
from tests.server.running import Note, Running, running, until

SETTINGS = WebSocketSettings(
    max_queue_bytes=256 * 1024, write_timeout=timedelta(seconds=0.5), close_timeout=timedelta(seconds=0.3)
)


async def empty(server: Running, room: str) -> None:
    await until(lambda: not server.manager.members(room), what="the room is empty")
    await until(lambda: not server.connections and not server.protocols, what="no socket is left")
    await until(lambda: not server.server.server_state.tasks, what="no task is left")


async def test_f21_a_browser_whose_network_has_gone_leaves_its_rooms():
    async with running(settings=SETTINGS, ws_ping_interval=0.3, ws_ping_timeout=0.3) as server:
        async with FaultProxy(server.port) as proxy, connect(f"ws://127.0.0.1:{proxy.port}/room/a") as browser:
            async with connect(server.url("/room/b")) as other:
                await until(lambda: server.manager.members("a") and server.manager.members("b"))
                proxy.blackhole()
                await until(lambda: not server.manager.members("a"), 0.6 + 2)
                await server.manager.send(["b"], Note(n=1))
                assert json.loads(await other.recv())["message"]["n"] == 1
            await empty(server, "b")
            proxy.heal()
            with pytest.raises(ConnectionClosed):
                await browser.recv()


async def test_f20_a_browser_behind_a_trickle_is_let_go_and_delays_nobody():
    async with running(settings=SETTINGS) as server, FaultProxy(server.port) as proxy:
        async with (
            connect(f"ws://127.0.0.1:{proxy.port}/room/a", max_queue=1) as slow,
            connect(server.url("/room/a"), max_queue=None) as quick,
        ):
            await until(lambda: len(server.manager.members("a")) == 2)
            proxy.trickle(1, "to_client")
            sent = 0
            async with asyncio.timeout(20):
                while len(server.manager.members("a")) == 2:
                    await server.manager.send(["a"], Note(text="x" * 10_000, n=sent))
                    assert json.loads(await quick.recv())["message"]["n"] == sent
                    sent += 1
            assert server.manager.counters.overflows == 1
            await until(lambda: len(server.protocols) == 1, 2, "its transport is dropped, not waited for")
            await server.manager.send(["a"], Note(n=sent))
            assert json.loads(await quick.recv())["message"]["n"] == sent
            proxy.reset()
            await slow.wait_closed()
            assert slow.close_code == 1006
        await empty(server, "a")


async def test_f21_a_short_silence_harms_nobody():
    async with running(settings=SETTINGS, ws_ping_interval=0.3, ws_ping_timeout=10) as server:
        async with FaultProxy(server.port) as proxy, connect(f"ws://127.0.0.1:{proxy.port}/room/a") as browser:
            await until(lambda: server.manager.members("a"))
            proxy.blackhole()
            for n in range(10):
                await server.manager.send(["a"], Note(n=n))
            await asyncio.sleep(0.5)  # pings have gone unanswered
            proxy.heal()
            assert [json.loads(await browser.recv())["message"]["n"] for _ in range(10)] == list(range(10))
