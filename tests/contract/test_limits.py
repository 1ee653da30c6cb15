"""How many connections there may be, on every kind of backend that knows it: for all instances together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from starlette.types import Scope

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.errors import BadUserId, LimitReached
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.microservice import RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect
from tests.contract.conftest import REDIS, on_redis
from tests.unit.apps import App, running
from tests.unit.clusters import MakeBackend
from tests.unit.played import until


@RestController("")
class Sockets:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()

    @WebSocketEndpoint("/of/{user}")
    async def of(self, user: str, connection: WebSocketConnection) -> None:
        """Says whose it is after it was accepted."""
        await connection.identify(user)
        await connection.closed.wait()

    @WebSocketEndpoint("/early/{user}", accept=False)
    async def early(self, user: str, connection: WebSocketConnection) -> None:
        """Says whose it is before."""
        await connection.identify(user)
        await connection.accept()
        await connection.closed.wait()


class Fleet:
    """Instances, and clients on them."""

    def __init__(self, apps: list[App], stack: AsyncExitStack) -> None:
        self.apps = apps
        self._stack = stack

    @asynccontextmanager
    async def client(self, instance: int, path: str = "/ws", address: str = "a") -> AsyncIterator[InLoopWebSocket]:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await self.apps[instance].asgi({**scope, "client": (address, 1)}, receive, send)

        async with connect(app, path) as socket:
            yield socket

    async def stays(self, instance: int, path: str = "/ws", address: str = "a") -> InLoopWebSocket:
        before = self._identified(instance)
        socket = await self._stack.enter_async_context(self.client(instance, path, address))
        if path.startswith("/of/"):
            await until(lambda: self._identified(instance) > before)
        return socket

    def _identified(self, instance: int) -> int:
        return sum(connection.user_id is not None for connection in self.apps[instance].manager.connections)

    async def refused(self, instance: int, path: str = "/ws", address: str = "a") -> WebSocketClosed:
        """How a client is refused, or closed soon after."""
        try:
            async with self.client(instance, path, address) as socket:
                return await socket.closed()
        except WebSocketClosed as refused:
            return refused

    async def free(self, instance: int, path: str = "/ws", address: str = "a") -> None:
        """Until one more may come."""
        async with asyncio.timeout(5):
            while True:
                try:
                    await self.stays(instance, path, address)
                    return
                except WebSocketClosed:
                    await asyncio.sleep(0.005)


Started = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture(params=["memory", *REDIS])
def make(request: pytest.FixtureRequest) -> MakeBackend:
    if request.param == "memory":
        one = MemoryWebSocketConnectionBackend()
        return lambda: one
    return on_redis(request)


@pytest.fixture
def two(make: MakeBackend) -> Started:
    @asynccontextmanager
    async def started(**limits: Any) -> AsyncIterator[Fleet]:
        settings = WebSocketSettings(**limits)
        async with AsyncExitStack() as stack:
            apps = [
                await stack.enter_async_context(
                    running(Sockets, interceptor=WebSocketInterceptor(make(), settings=settings))
                )
                for _ in range(2)
            ]
            yield Fleet(apps, await stack.enter_async_context(AsyncExitStack()))

    return started


async def test_b23_in_total(two: Started):
    async with two(max_connections=3) as fleet:
        first = await fleet.stays(0)
        await fleet.stays(1, address="b")
        await fleet.stays(1, address="c")
        for instance in (0, 1):
            assert (await fleet.refused(instance, address="d")).status == 429
        await first.close()
        await fleet.free(1)
        assert (await fleet.refused(0)).status == 429


async def test_b23_of_one_address(two: Started):
    async with two(max_connections_per_address=2) as fleet:
        await fleet.stays(0)
        gone = await fleet.stays(1)
        assert (await fleet.refused(0)).status == (await fleet.refused(1)).status == 429
        await fleet.stays(0, address="b")
        await gone.close()
        await fleet.free(0)
        await fleet.stays(1, address="2001:db8:1:2::1")
        await fleet.stays(0, address="2001:db8:1:2::2")
        assert (await fleet.refused(1, address="2001:db8:1:2:ffff::3")).status == 429


@pytest.mark.parametrize(("path", "told"), [("/early/ana", (4504, 429)), ("/of/ana", (4504, None))])
async def test_b23_of_one_user(two: Started, path: str, told: tuple[int, int | None]):
    async with two(max_connections_per_user=2) as fleet:
        await fleet.stays(0, path)
        gone = await fleet.stays(1, path)
        refused = await fleet.refused(0, path)
        assert refused.status == told[1]
        if told[1] is None:
            assert refused.code == told[0]
        await fleet.stays(0, "/of/bob")
        await fleet.stays(1)
        await gone.close()
        await fleet.free(1, "/early/ana")


async def test_who_is_somebody_else_from_now_on_counts_as_that(two: Started):
    async with two(max_connections_per_user=1) as fleet:
        await fleet.stays(0)
        await fleet.stays(1)
        (here,), (there,) = (app.manager.connections for app in fleet.apps)
        await here.identify("ana")
        await here.identify("ana")
        with pytest.raises(LimitReached, match="max_connections_per_user is reached: 1"):
            await there.identify("ana")
        assert there.user_id is None
        await here.identify("bob")
        async with asyncio.timeout(5):
            while there.user_id is None:
                try:
                    await there.identify("ana")
                except LimitReached:
                    await asyncio.sleep(0.005)
        with pytest.raises(LimitReached):
            await here.identify("ana")
        assert here.user_id == "bob"
        with pytest.raises(BadUserId):
            await here.identify("")


async def test_what_is_not_taken_on_is_not_counted(two: Started):
    """The address is full, so the total has room still."""
    async with two(max_connections=2, max_connections_per_address=1) as fleet:
        await fleet.stays(0)
        for _ in range(5):
            assert (await fleet.refused(1)).status == 429
        await fleet.stays(1, address="b")


async def test_an_instance_that_stops_gives_back_what_it_held(make: MakeBackend):
    settings = WebSocketSettings(max_connections=1)
    for _ in range(3):
        async with running(Sockets, interceptor=WebSocketInterceptor(make(), settings=settings)) as app:
            async with connect(app.asgi, "/ws"):
                with pytest.raises(WebSocketClosed) as refused:
                    async with connect(app.asgi, "/ws"):
                        pass
                assert refused.value.status == 429
