"""Tokens across the cluster: what one instance revokes, and which tickets it mints, on every kind of backend."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jararaca_ws import PresentedToken, QueryTicket, User, WebSocketConnection, WebSocketEndpoint, WebSocketInterceptor
from jararaca_ws.auth.sources import HeaderToken
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.testing import WebSocketClosed, connect
from tests.servers import RedisServer
from tests.unit.apps import App, running
from tests.unit.clusters import HubBackend, MakeBackend

Started = Callable[[], AbstractAsyncContextManager[tuple[App, App]]]


async def known(token: PresentedToken) -> User:
    who, token_id, issued_s = token.value.split(":")
    return User(id=who, token_id=token_id, issued_at=datetime.fromtimestamp(float(issued_s), UTC))


def bearer(who: str, token_id: str, ago_s: float = 10.0) -> dict[str, str]:
    return {"Authorization": f"Bearer {who}:{token_id}:{datetime.now(UTC).timestamp() - ago_s}"}


class Controller:
    @WebSocketEndpoint("/ws", authenticate=known, token_from=[HeaderToken(), QueryTicket()])
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()


@pytest.fixture
def two(make_on_redis: MakeBackend) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[tuple[App, App]]:
        first, second = (WebSocketInterceptor(make_on_redis()) for _ in range(2))
        async with running(Controller, interceptor=first) as one, running(Controller, interceptor=second) as other:
            yield one, other

    return started


async def status(app: App, path: str = "/ws", **options: Any) -> int | None:
    """Of a refused handshake; None where it is accepted."""
    try:
        async with connect(app.asgi, path, **options):
            return None
    except WebSocketClosed as refused:
        return refused.status or refused.code


async def test_b28_what_one_instance_revokes_no_instance_takes(two: Started):
    async with two() as (one, other):
        ana, rui = bearer("ana", "t-1"), bearer("rui", "t-2")
        async with (
            connect(one.asgi, "/ws", headers=ana) as here,
            connect(other.asgi, "/ws", headers=ana) as there,
            connect(other.asgi, "/ws", headers=rui) as somebody_else,
        ):
            started = time.monotonic()
            await one.manager.revoke(token_id="t-1")
            # From the moment in which it has returned.
            assert [await status(app, headers=ana) for app in (one, other)] == [401, 401]
            assert [(await socket.closed()).code for socket in (here, there)] == [4500, 4500]
            assert time.monotonic() - started < 2
            assert [await status(app, headers=bearer("ana", "t-3")) for app in (one, other)] == [None, None]
            [left] = other.manager.connections
            assert left.user_id == "rui"
            await somebody_else.close()


async def test_b28_a_user_with_everything_that_was_issued_until_now(two: Started):
    async with two() as (one, other):
        async with connect(other.asgi, "/ws", headers=bearer("ana", "t-1")) as there:
            await one.manager.revoke(user_id="ana")
            assert (await there.closed()).code == 4500
        for app in (one, other):
            assert await status(app, headers=bearer("ana", "t-9")) == 401
            assert await status(app, headers=bearer("ana", "t-9", ago_s=-5)) is None
            assert await status(app, headers=bearer("rui", "t-2")) is None


async def test_b28_it_is_forgotten_after_the_life_of_a_token(two: Started):
    async with two() as (one, other):
        revocations, ana = other.manager.tokens.revocations, User(id="ana", token_id="t-1")
        await one.manager.revoke(token_id="t-1", lifetime=timedelta(seconds=1))
        assert await revocations.are_revoked([ana]) == [True]
        async with asyncio.timeout(5):
            while await revocations.are_revoked([ana]) == [True]:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)


async def test_b26_a_ticket_of_one_instance_counts_once_on_any(two: Started):
    async with two() as (one, other):
        for _ in range(5):
            ticket = await one.manager.mint_ticket(User(id="ana"))
            at_once = [status(app, f"/ws?ticket={ticket}") for app in (one, other) for _ in range(4)]
            answers = await asyncio.gather(*at_once)
            assert sorted(answers, key=str) == [401] * 7 + [None]


@pytest.mark.redis
async def test_b28_who_was_cut_off_from_redis_looks_again(redis_server: RedisServer):
    """The word of a revocation is lost: it goes through a connection that Redis has killed."""
    interceptors = [WebSocketInterceptor(RedisWebSocketConnectionBackend(redis_server.url)) for _ in range(2)]
    async with (
        running(Controller, interceptor=interceptors[0]) as one,
        running(Controller, interceptor=interceptors[1]) as other,
    ):
        async with connect(other.asgi, "/ws", headers=bearer("ana", "t-1")) as there:
            # As `revoke` does, but for the word to the others.
            await one.manager.tokens.revocations.add(None, "t-1", timedelta(hours=1))
            async with Redis.from_url(redis_server.url) as admin:
                await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert (await there.closed(timeout_s=10)).code == 4500


async def test_a_backend_that_keeps_nothing_says_so():
    hub: list[HubBackend] = []
    async with WebSocketConnectionManager(HubBackend(hub)) as manager:
        with pytest.raises(ConfigurationError, match="KeepingBackend"):
            await manager.revoke(user_id="ana")
        with pytest.raises(ConfigurationError, match="KeepingBackend"):
            await manager.mint_ticket(User(id="ana"))
