"""Presence of real processes, one of which is killed or stopped."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.servers import OwnedProcess, RedisServer, free_port
from tests.servers.process import answer

pytestmark = [pytest.mark.redis, pytest.mark.e2e]

HERE = Path(__file__).parent
TTL_S = 2.0


class Instance:
    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.port = free_port()
        self.process = OwnedProcess(
            [
                *(Path(sys.executable).with_name("jararaca-ws"), "serve", "--app-dir", HERE),
                *("presence_application:app", "--port", str(self.port)),
            ],
            log=directory / f"serve-{self.port}.log",
            env={**os.environ, "REDIS_URL": redis.url},
        )

    def wait_until_up(self) -> Instance:
        self.process.wait_until(lambda: b"200 OK" in answer(self.port, b"GET /rooms/a HTTP/1.0\r\n\r\n"))
        return self

    def browser(self, user: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/rooms/a/{user}", subprotocols=["jararaca.v1"])  # type: ignore[list-item]


@pytest.fixture
def start(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[[], Instance]]:
    instances: list[Instance] = []

    def one() -> Instance:
        instances.append(Instance(tmp_path, redis_server))
        return instances[-1]

    try:
        yield one
    finally:
        for instance in instances:
            instance.process.terminate()


async def told(browser: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        envelope = json.loads(await browser.recv())
    assert envelope["MESSAGE_ID"] == "jararaca.presence"
    return envelope["message"]


async def joined(browser: ClientConnection, *users: str) -> None:
    """Read until exactly these have been told to be there."""
    there: set[str] = set()
    while there != set(users):
        message = await told(browser)
        if message["kind"] == "state":
            there.clear()
        there |= {present["user_id"] for present in message["joined"]}
        assert message["left"] == []


async def listed(instance: Instance) -> list[str]:
    async with httpx.AsyncClient(timeout=10) as http:
        return (await http.get(f"http://127.0.0.1:{instance.port}/rooms/a")).json()


async def test_f15_the_members_of_a_killed_instance_go_within_the_ttl(start: Callable[[], Instance]):
    one, two = start(), start()
    for instance in (one, two):
        instance.wait_until_up()
    async with one.browser("ana"), one.browser("bob"), two.browser("cleo") as cleo:
        await joined(cleo, "ana", "bob", "cleo")
        assert await listed(two) == await listed(one) == ["ana", "bob", "cleo"]
        killed_at = time.monotonic()
        one.process.kill()
        message = await told(cleo)
        took_s = time.monotonic() - killed_at
    assert (message["kind"], message["left"], message["count"]) == ("diff", ["user:ana", "user:bob"], 1)
    assert await listed(two) in (["cleo"], [])
    assert took_s < TTL_S + 1  # the bound is F15's, plus scheduling


async def test_who_comes_back_on_another_instance_was_never_away(start: Callable[[], Instance]):
    one, two = start(), start()
    for instance in (one, two):
        instance.wait_until_up()
    async with two.browser("cleo") as cleo:
        async with one.browser("ana"):
            await joined(cleo, "ana", "cleo")
        async with two.browser("ana"):
            await asyncio.to_thread(one.process.terminate)
            async with two.browser("dan"):
                await joined(cleo, "dan")
            # By then the grace period of ana's first connection is over too.
            assert (await told(cleo))["left"] == ["user:dan"]
