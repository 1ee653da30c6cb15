"""B23 on real Redis: limits that hold exactly, for all that come at once, and again after an instance was killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import Scope

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.limits.claims import Claims
from jararaca_ws.microservice import RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import WebSocketClosed, connect
from tests.servers import RedisServer
from tests.unit.apps import App, running

pytestmark = pytest.mark.redis

AT_ONCE = 1000
TTL = timedelta(seconds=4)  # longer than a thousand handshakes keep a busy machine from anything else


@RestController("")
class Sockets:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()


@asynccontextmanager
async def instance(redis: RedisServer, **limits: Any) -> AsyncIterator[App]:
    settings = WebSocketSettings(handshake_rate=None, limits_ttl=TTL, **limits)
    interceptor = WebSocketInterceptor(RedisWebSocketConnectionBackend(redis.url), settings=settings)
    async with running(Sockets, interceptor=interceptor) as app:
        yield app


class Crowd:
    """Clients that come at once and stay.

    Attributes:
        accepted: how many were.
        statuses: what the others were answered.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.accepted = 0
        self.statuses: set[int | None] = set()

    async def come(self, apps: list[App], count: int, addresses: int = 1) -> int:
        """So many at once, spread over the instances and addresses; how many were accepted."""
        before = self.accepted
        await asyncio.gather(*(self._come(apps[n % len(apps)], f"10.0.0.{n % addresses}") for n in range(count)))
        return self.accepted - before

    async def _come(self, app: App, address: str) -> None:
        async def addressed(scope: Scope, receive: Any, send: Any) -> None:
            await app.asgi({**scope, "client": (address, 1)}, receive, send)

        try:
            await self._stack.enter_async_context(connect(addressed, "/ws"))
        except WebSocketClosed as refused:
            self.statuses.add(refused.status)
        else:
            self.accepted += 1


def held(app: App, name: str = "total") -> int:
    claims = app.manager.admission._claims
    assert claims is not None
    return claims.held.get(name, 0)


async def vanish(app: App) -> None:
    """What is left in Redis of an instance that was killed: all that it held, and no more signs of life."""
    claims = app.manager.admission._claims
    assert isinstance(claims, Claims)
    await claims._task.stop()
    claims._anew = True  # nor does it say goodbye


@pytest.mark.timeout(120)
async def test_b23_limits_hold_exactly_for_a_thousand_at_once_and_again_after_a_kill(redis_server: RedisServer):
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(instance(redis_server, max_connections=900))
        two = await stack.enter_async_context(instance(redis_server, max_connections=900))
        killed = await stack.enter_async_context(instance(redis_server, max_connections=900))
        clients = await stack.enter_async_context(AsyncExitStack())
        crowd = Crowd(clients)
        assert await crowd.come([killed], 120) == 120
        assert await crowd.come([one, two], AT_ONCE) == 780
        assert held(one) + held(two) == 780
        assert min(held(one), held(two)) > 0
        assert await crowd.come([one, two, killed], 100) == 0

        await vanish(killed)
        assert await crowd.come([one, two], 100) == 0
        async with asyncio.timeout(20):
            while not await crowd.come([one], 1):  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.05)
        assert await crowd.come([one, two], AT_ONCE) == 119
        assert crowd.statuses == {429}
        assert held(one) + held(two) == 900


@pytest.mark.timeout(120)
async def test_b23_each_address_has_its_number_exactly(redis_server: RedisServer):
    async with AsyncExitStack() as stack:
        apps = [
            await stack.enter_async_context(
                instance(redis_server, max_connections_per_address=7, max_connections=AT_ONCE)
            )
            for _ in range(2)
        ]
        crowd = Crowd(await stack.enter_async_context(AsyncExitStack()))
        # 11 and 2 have no common divisor: each address comes to both.
        assert await crowd.come(apps, AT_ONCE, addresses=11) == 7 * 11
        for n in range(11):
            assert sum(held(app, f"address:10.0.0.{n}") for app in apps) == 7


async def test_redis_that_comes_back_empty_is_told_again(redis_server: RedisServer):
    async with (
        instance(redis_server, max_connections=4) as one,
        instance(redis_server, max_connections=4) as two,
        AsyncExitStack() as clients,
    ):
        crowd = Crowd(clients)
        assert await crowd.come([one, two], 4) == 4
        await asyncio.to_thread(redis_server.kill)
        await asyncio.to_thread(redis_server.start)
        await asyncio.sleep(2 * TTL.total_seconds())  # by then each has given a sign of life
        assert await crowd.come([one, two], 10) == 0


async def test_while_redis_is_away_each_instance_counts_its_own(redis_server: RedisServer):
    async with (
        instance(redis_server, max_connections=4) as one,
        instance(redis_server, max_connections=4) as two,
        AsyncExitStack() as clients,
    ):
        crowd = Crowd(clients)
        assert await crowd.come([one, two], 4) == 4
        redis_server.pause()
        try:
            assert await crowd.come([one, two], 40) == 4  # two more on each
            assert (held(one), held(two)) == (4, 4)
        finally:
            redis_server.resume()
        await asyncio.sleep(2 * TTL.total_seconds())
        # Nobody was closed for it, and nobody more comes.
        assert await crowd.come([one, two], 10) == 0


async def test_nobody_is_taken_on_while_redis_is_away_where_that_was_asked_for(redis_server: RedisServer):
    async with (
        instance(redis_server, max_connections=4, limits_fail_open=False) as app,
        AsyncExitStack() as clients,
    ):
        crowd = Crowd(clients)
        assert await crowd.come([app], 2) == 2
        redis_server.pause()
        try:
            for _ in range(2):
                with pytest.raises(WebSocketClosed) as refused:
                    async with connect(app.asgi, "/ws"):
                        pass
                assert refused.value.status == 503
        finally:
            redis_server.resume()
        async with asyncio.timeout(20):
            while not await crowd.come([app], 1):  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.05)
        assert await crowd.come([app], 10) == 1
