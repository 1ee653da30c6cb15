"""Whole instances in trouble: one that stands still, one that runs out of file descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from tests.e2e.fleet import Instance, worker
from tests.e2e.test_fleet import received, say
from tests.servers import RabbitMQServer, RedisServer

pytestmark = pytest.mark.e2e

STANDSTILL_S = 3


@pytest.mark.redis
@pytest.mark.rabbitmq
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_f18_without_redis_nothing_starts_by_half(command: str, rabbitmq_server: RabbitMQServer, tmp_path: Path):
    rabbitmq_server.start()
    absent = RedisServer(tmp_path / "redis")
    if command == "serve":
        process = Instance(tmp_path, absent, rabbitmq_server).process
    else:
        process = worker(tmp_path, absent, rabbitmq_server)
    with process:
        assert process.wait() == 4
        refusal = process.output().splitlines()[-1]
        assert refusal.startswith("jararaca-ws: the WebSocket backend is unavailable: ")
        assert str(absent.port) in refusal
        for started in ("consumes with", "startup complete", "Traceback"):
            assert started not in process.output()


@pytest.mark.redis
async def test_f25_an_instance_that_stands_still_loses_no_socket_and_no_message(
    redis_server: RedisServer, tmp_path: Path
):
    """From outside, an event loop that user code blocks and a stopped process are the same."""
    one, two = (Instance(tmp_path, redis_server) for _ in range(2))
    with one.process, two.process:
        for instance in (one, two):
            await asyncio.to_thread(instance.wait_until_up)
        async with AsyncExitStack() as stack, httpx.AsyncClient(timeout=20) as http:
            browsers = [
                await stack.enter_async_context(connect(two.ws("lobby"), subprotocols=["jararaca.v1"]))  # type: ignore[list-item]
                for _ in range(20)
            ]
            two.process.pause()
            try:
                for n in range(STANDSTILL_S * 10):
                    await say(http, one, "lobby", str(n))
                    await asyncio.sleep(0.1)
            finally:
                two.process.resume()
            await say(http, two, "lobby", "last")
            expected = [*map(str, range(STANDSTILL_S * 10)), "last"]
            for browser in browsers:
                messages = [await received(browser) for _ in expected]
                # A gap would be among them: Redis has not been silent, we have.
                assert [message["message"].get("text") for message in messages] == expected
                assert browser.close_code is None


async def test_f45_without_file_descriptors_the_sockets_that_are_there_live_on(tmp_path: Path):
    instance = Instance(tmp_path)
    with instance.process as process:
        await asyncio.to_thread(instance.wait_until_up)
        async with AsyncExitStack() as stack, httpx.AsyncClient(timeout=20) as http:
            browsers = [await stack.enter_async_context(connect(instance.ws("lobby"))) for _ in range(10)]
            await say(http, instance, "lobby", "before")  # this connection is kept
            in_use = len(os.listdir(f"/proc/{process.pid}/fd"))
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (in_use, in_use))
            logged = len(process.output().splitlines())
            for _ in range(50):
                with pytest.raises((OSError, InvalidHandshake)):
                    await connect(instance.ws("lobby"), open_timeout=2)
            await say(http, instance, "lobby", "during")
            for browser in browsers:
                texts = [(await received(browser))["message"]["text"] for _ in range(2)]
                assert texts == ["before", "during"]
            new_lines = process.output().splitlines()[logged:]
            assert len(new_lines) <= 3, "one for the request; the refused ones do not flood the log"
            await browsers.pop().close()
            async with asyncio.timeout(10):
                while True:  # the place of the one that has gone
                    try:
                        async with connect(instance.ws("lobby")):
                            break
                    except (OSError, InvalidHandshake):
                        await asyncio.sleep(0.05)
