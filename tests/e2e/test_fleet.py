"""Two instances, a worker, Redis and RabbitMQ: all real, all processes of their own."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.fleet import Instance, publisher, worker
from tests.servers import OwnedProcess, RabbitMQServer, RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.redis, pytest.mark.rabbitmq]


@dataclass
class Fleet:
    one: Instance
    two: Instance
    worker: OwnedProcess
    redis: RedisServer
    rabbitmq: RabbitMQServer
    directory: Path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, rabbitmq_server: RabbitMQServer) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    redis = RedisServer(directory / "redis")
    redis.start()
    processes: list[OwnedProcess] = []
    try:
        working = worker(directory, redis, rabbitmq_server)
        processes.append(working)
        instances = [Instance(directory, redis, rabbitmq_server) for _ in range(2)]
        processes += [instance.process for instance in instances]
        one, two = [instance.wait_until_up() for instance in instances]
        # The queue exists from here on: a notify before that would be unroutable.
        working.wait_until(lambda: "chat consumes with" in working.output())
        yield Fleet(one, two, working, redis, rabbitmq_server, directory)
    finally:
        for process in processes:
            process.terminate()
        redis.stop()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def received(browser: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        return json.loads(await browser.recv())


async def say(http: httpx.AsyncClient, instance: Instance, room: str, text: str) -> None:
    response = await http.post(f"{instance.http}/rooms/{room}/messages", json={"name": "Ana", "text": text})
    assert response.status_code == 202, response.text


async def test_rest_on_one_instance_reaches_browsers_on_both(fleet: Fleet, http: httpx.AsyncClient):
    async with connect(fleet.one.ws("lobby")) as near, connect(fleet.two.ws("lobby")) as far:
        await say(http, fleet.one, "lobby", "hello")
        for browser in (near, far):
            envelope = await received(browser)
            assert envelope["MESSAGE_ID"] == "chat.message"
            assert envelope["message"]["text"] == "hello"


async def test_a_bus_message_of_a_third_process_reaches_browsers_on_both(fleet: Fleet):
    async with connect(fleet.one.ws("kitchen")) as near, connect(fleet.two.ws("kitchen")) as far:
        sender = publisher(fleet.directory, fleet.rabbitmq, "kitchen", "Rui")
        assert await asyncio.to_thread(sender.wait) == 0, sender.output()
        for browser in (near, far):
            envelope = await received(browser)
            assert envelope["MESSAGE_ID"] == "chat.notification"
            assert envelope["message"]["text"] == "Rui waves to everyone"


async def test_notify_through_rest_goes_over_the_bus(fleet: Fleet, http: httpx.AsyncClient):
    async with connect(fleet.two.ws("garden")) as browser:
        response = await http.post(f"{fleet.one.http}/rooms/garden/notify", json={"name": "Eva"})
        assert response.status_code == 202, response.text
        assert (await received(browser))["message"]["text"] == "Eva waves to everyone"


async def test_a_thousand_messages_arrive_in_order_on_both(fleet: Fleet, http: httpx.AsyncClient):
    async with (
        connect(fleet.one.ws("order"), max_queue=None) as near,
        connect(fleet.two.ws("order"), max_queue=None) as far,
    ):
        for n in range(1000):
            await say(http, fleet.one, "order", str(n))
        for browser in (near, far):
            assert [(await received(browser))["message"]["text"] for _ in range(1000)] == [str(n) for n in range(1000)]


async def test_rooms_do_not_leak_into_each_other(fleet: Fleet, http: httpx.AsyncClient):
    async with connect(fleet.two.ws("a%2Cb")) as both, connect(fleet.two.ws("a")) as a, connect(fleet.two.ws("b")) as b:
        await say(http, fleet.one, "a%2Cb", "for a,b")
        await say(http, fleet.one, "a", "for a")
        await say(http, fleet.one, "b", "for b")
        for browser, text in ((both, "for a,b"), (a, "for a"), (b, "for b")):
            assert (await received(browser))["message"]["text"] == text


async def test_b40_a_room_with_nul_is_refused_and_harms_nothing(fleet: Fleet, http: httpx.AsyncClient):
    refused = await http.post(f"{fleet.one.http}/rooms/a%00b/messages", json={"name": "Ana", "text": "x"})
    assert refused.status_code == 400
    async with connect(fleet.one.ws("a%00b")) as browser:
        with pytest.raises(ConnectionClosed):
            await browser.recv()
        assert browser.close_code == 4501
    async with connect(fleet.one.ws("still")) as browser:
        await say(http, fleet.two, "still", "here")
        assert (await received(browser))["message"]["text"] == "here"


async def test_a_stalled_reader_delays_nobody_and_is_let_go(fleet: Fleet, http: httpx.AsyncClient):
    stalled = await asyncio.to_thread(raw_websocket, fleet.two.port, "/ws/busy")
    try:
        async with connect(fleet.two.ws("busy"), max_queue=None) as healthy:
            for n in range(4000):  # more than the kernel's buffers and the outbound queue together hold
                await say(http, fleet.one, "busy", f"{n} ".ljust(1990, "x") + ".")
                assert (await received(healthy))["message"]["text"].startswith(f"{n} ")
                if "slow consumer" in fleet.two.process.output():
                    break
            else:
                pytest.fail("8 MB were sent to a reader that never read, and it was kept")
            await say(http, fleet.one, "busy", "after")
            assert (await received(healthy))["message"]["text"] == "after"
    finally:
        stalled.close()


def raw_websocket(port: int, path: str) -> socket.socket:
    """A client that has shaken hands and never reads again."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", port))
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b"101" in raw.recv(12)
    return raw


def reset(raw: socket.socket) -> None:
    """Vanish with a RST instead of a FIN."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


async def test_a_disconnect_storm_leaves_no_subscription(fleet: Fleet, http: httpx.AsyncClient):
    for _ in range(3):
        sockets = [await asyncio.to_thread(raw_websocket, fleet.one.port, f"/ws/storm-{n % 40}") for n in range(120)]
        for raw in sockets:
            reset(raw)
    async with Redis.from_url(fleet.redis.url) as redis, asyncio.timeout(20):
        while await redis.pubsub_channels("jararaca:websocket:send:storm-*"):  # noqa: ASYNC110  # it is Redis that knows
            await asyncio.sleep(0.05)
    async with connect(fleet.one.ws("storm-1")) as browser:
        await say(http, fleet.two, "storm-1", "alive")
        assert (await received(browser))["message"]["text"] == "alive"


async def test_while_redis_is_away_rest_answers_503_and_afterwards_everything_flows(
    fleet: Fleet, http: httpx.AsyncClient
):
    async with AsyncExitStack() as stack:
        browsers = [await stack.enter_async_context(connect(fleet.two.ws("away"))) for _ in range(2)]
        v1 = await stack.enter_async_context(connect(fleet.two.ws("away"), subprotocols=["jararaca.v1"]))  # type: ignore[list-item]
        fleet.redis.kill()
        refused = await http.post(f"{fleet.one.http}/rooms/away/messages", json={"name": "Ana", "text": "lost"})
        assert refused.status_code == 503
        assert refused.json()["detail"] == "the WebSocket backend is unavailable: try again"
        fleet.redis.start()
        # A client that understands control messages is told what it may have missed: the room, and broadcasts.
        gaps = [await received(v1), await received(v1)]
        assert [gap["MESSAGE_ID"] for gap in gaps] == ["jararaca.gap"] * 2
        assert {gap["message"]["room"] for gap in gaps} == {"away", None}
        await say(http, fleet.one, "away", "back")
        for browser in (*browsers, v1):
            assert (await received(browser))["message"]["text"] == "back"


async def test_sigterm_closes_the_sockets_and_ends_with_0(fleet: Fleet, tmp_path: Path):
    three = await asyncio.to_thread(Instance(tmp_path, fleet.redis, fleet.rabbitmq).wait_until_up)
    async with connect(three.ws("bye")) as browser:
        three.process.signal_terminate()
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(20):
                await browser.recv()
        assert browser.close_code in (1012, 4001)  # come back; never a bare 1006
    assert await asyncio.to_thread(three.process.wait) == 0, three.process.output()
    assert not re.search(r"Traceback|never retrieved|was destroyed", three.process.output())
