from __future__ import annotations

import asyncio

import fakeredis
import pytest
from redis.asyncio import Redis

from jararaca_ws.backends.base import BroadcastFunc, SendFunc
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.testing import BACKEND_CONTRACT
from tests.servers.redis import RedisServer

contract = pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)


class SeedShapedBackend:
    """What a user may have written: the four methods, and a hub in place of a server."""

    hub: list[SeedShapedBackend]

    def __init__(self, hub: list[SeedShapedBackend]) -> None:
        self.hub = hub

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._broadcast, self._send = broadcast, send
        self.hub.append(self)

    async def broadcast(self, message: bytes) -> None:
        for other in self.hub:
            await other._broadcast(message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        for other in self.hub:
            await other._send(rooms, message)

    async def shutdown(self) -> None:
        self.hub.remove(self)


@contract
async def test_memory(check):
    await check(MemoryWebSocketConnectionBackend, distributed=False)


@contract
async def test_a_backend_with_only_the_four_methods(check):
    hub: list[SeedShapedBackend] = []
    await check(lambda: SeedShapedBackend(hub))


@contract
async def test_fakeredis(check):
    server = fakeredis.FakeServer()
    await check(lambda: RedisWebSocketConnectionBackend(conn=fakeredis.FakeAsyncRedis(server=server)))


@pytest.mark.redis
@contract
async def test_redis(check, redis_server: RedisServer):
    await check(lambda: RedisWebSocketConnectionBackend(conn=Redis.from_url(redis_server.url)))
