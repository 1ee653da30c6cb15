"""Limits of connections with real processes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.fleet import COMMAND
from tests.servers import OwnedProcess, RedisServer, free_port
from tests.servers.process import answer

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

TTL_S = 2.0


class Instance:
    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.port = free_port()
        self.process = OwnedProcess(
            [*COMMAND, "serve", "--app-dir", Path(__file__).parent, "limited_app:app", "--port", str(self.port)],
            log=directory / f"serve-{self.port}.log",
            env={**os.environ, "REDIS_URL": redis.url, "PYTHONUNBUFFERED": "1"},
        )

    async def up(self) -> None:
        question = b"GET /info HTTP/1.0\r\n\r\n"
        await asyncio.to_thread(self.process.wait_until, lambda: b"200 OK" in answer(self.port, question))


class Clients:
    """Clients that stay until the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def come(self, instance: Instance, count: int) -> int:
        """So many, at once; how many were accepted. The others were answered 429."""
        return sum(await asyncio.gather(*(self._come(instance) for _ in range(count))))

    async def _come(self, instance: Instance) -> bool:
        try:
            await self._stack.enter_async_context(connect(f"ws://127.0.0.1:{instance.port}/ws"))
        except InvalidStatus as refused:
            if refused.response.status_code != 429:
                raise
            return False
        return True


async def test_b23_what_a_killed_instance_held_is_free_after_the_ttl_and_no_more(
    tmp_path: Path, redis_server: RedisServer
):
    async with AsyncExitStack() as stack:
        one, two = Instance(tmp_path, redis_server), Instance(tmp_path, redis_server)
        stack.callback(one.process.terminate)
        stack.callback(two.process.kill)
        await one.up()
        await two.up()
        clients = Clients(await stack.enter_async_context(AsyncExitStack()))
        assert await clients.come(two, 6) == 6
        assert await clients.come(one, 20) == 4
        assert await clients.come(two, 5) == 0
        two.process.kill()
        killed = time.monotonic()
        assert await clients.come(one, 5) == 0
        came = 0
        async with asyncio.timeout(20):
            while not came:
                came = await clients.come(one, 20)
                await asyncio.sleep(0.05)
        assert time.monotonic() - killed < 2 * TTL_S + 1
        assert came == 6
        assert await clients.come(one, 20) == 0
