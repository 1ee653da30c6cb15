from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import fakeredis
import pytest

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable, ConfigurationError
from jararaca_ws.inbound.receiving import Receive
from jararaca_ws.interceptors.rate_limit import RateLimitInterceptor
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.limits.rates import Rate
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Get, RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import connect
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.apps import App, running

HOUR = timedelta(hours=1)


class Posted(WebSocketMessage):
    MESSAGE_ID = "rates.posted"


class Typing(WebSocketMessage):
    MESSAGE_ID = "rates.typing"


class Moved(WebSocketMessage):
    MESSAGE_ID = "rates.moved"


class Done(WebSocketMessage):
    MESSAGE_ID = "rates.done"


@RestController("")
class Sockets:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection, user: str | None = None) -> None:
        if user is not None:
            await connection.identify(user)

    @Receive(Posted)
    async def posted(self, message: Posted) -> Done:
        return Done()

    @Receive(Typing)
    async def typing(self, message: Typing) -> Done:
        return Done()

    @Receive(Moved)
    async def moved(self, message: Moved) -> Done:
        return Done()

    @Get("/hello")
    async def hello(self) -> str:
        return "hello"


class Client:
    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self._refs = 0

    async def ask(self, message: type[WebSocketMessage] = Posted) -> dict[str, Any]:
        self._refs += 1
        await self.socket.send_text(
            json.dumps({"MESSAGE_ID": message.MESSAGE_ID, "message": {}, "ref": str(self._refs)})
        )
        answer: dict[str, Any] = await self.socket.receive_json()
        assert answer["ref"] == str(self._refs)
        return answer

    async def codes(self, count: int, message: type[WebSocketMessage] = Posted) -> list[str]:
        """What so many messages are answered with: "" for one that was handled."""
        return [(await self.ask(message))["message"].get("code", "") for _ in range(count)]


@asynccontextmanager
async def client(app: App, path: str = "/ws") -> AsyncIterator[Client]:
    async with connect(app.asgi, path, subprotocols=[SUBPROTOCOL]) as socket:
        yield Client(socket)


REFUSED = "rate_limited"


async def test_b29_the_101st_message_in_a_minute_is_refused_with_when_to_come_again():
    limit = RateLimitInterceptor(Rate(100, timedelta(minutes=1)), clock=lambda: 1.0)
    async with running(Sockets, others=[limit]) as app, client(app) as one, client(app) as other:
        assert await one.codes(100) == [""] * 100
        refused = await one.ask()
        assert refused["MESSAGE_ID"] == "jararaca.error"
        assert refused["message"]["code"] == REFUSED
        assert refused["message"]["retry_after_ms"] == 600
        assert await other.codes(1) == [""]


async def test_b29_who_goes_on_is_closed_with_4013():
    limit = RateLimitInterceptor(Rate(1, HOUR))
    async with running(Sockets, others=[limit]) as app, client(app) as one:
        text = json.dumps({"MESSAGE_ID": Posted.MESSAGE_ID, "message": {}})
        for _ in range(200):
            await one.socket.send_text(text)
        assert (await one.socket.closed()).code == 4013


async def test_a_refused_message_is_not_handled_and_time_heals():
    now = 0.0
    limit = RateLimitInterceptor(Rate(1, timedelta(seconds=10)), clock=lambda: now)
    async with running(Sockets, others=[limit]) as app, client(app) as one:
        assert await one.codes(2) == ["", REFUSED]
        now = 9.9
        assert await one.codes(1) == [REFUSED]
        now = 10.0
        assert await one.codes(2) == ["", REFUSED]


async def test_types_have_rates_of_their_own_or_none():
    limit = RateLimitInterceptor(Rate(2, HOUR), per_type={Moved: Rate(3, HOUR)}, excluded=[Typing])
    async with running(Sockets, others=[limit]) as app, client(app) as one:
        assert await one.codes(4, Moved) == ["", "", "", REFUSED]
        assert await one.codes(20, Typing) == [""] * 20
        assert await one.codes(3, Posted) == ["", "", REFUSED]


async def test_by_user_all_connections_are_one():
    limit = RateLimitInterceptor(Rate(2, HOUR), by="user")
    async with running(Sockets, others=[limit]) as app:
        async with client(app, "/ws?user=ana") as one, client(app, "/ws?user=ana") as two:
            assert await one.codes(1) + await two.codes(2) == ["", "", REFUSED]
        async with client(app, "/ws?user=bob") as bob, client(app) as nobody:
            assert await bob.codes(3) == await nobody.codes(3) == ["", "", REFUSED]


async def test_by_address_all_clients_there_are_one():
    limit = RateLimitInterceptor(Rate(2, HOUR), by="address")
    async with running(Sockets, others=[limit]) as app, client(app) as one, client(app) as two:
        assert await one.codes(1) + await two.codes(2) == ["", "", REFUSED]


async def test_by_a_function_that_may_let_pass():
    def tenant(data: Any) -> str | None:
        user: str | None = data.connection.user_id
        return None if user is None else user.partition("@")[2]

    limit = RateLimitInterceptor(Rate(1, HOUR), by=tenant)
    async with running(Sockets, others=[limit]) as app:
        async with client(app, "/ws?user=ana@x") as ana, client(app, "/ws?user=bob@x") as bob, client(app) as free:
            assert await ana.codes(1) + await bob.codes(1) == ["", REFUSED]
            assert await free.codes(5) == [""] * 5


async def test_http_where_it_counts():
    async with running(Sockets, others=[RateLimitInterceptor(Rate(2, HOUR), http=True)]) as app:
        answers = [await app.http.get("/hello") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["retry-after"] == "1800"
    async with running(Sockets, others=[RateLimitInterceptor(Rate(2, HOUR))]) as app:
        assert [(await app.http.get("/hello")).status_code for _ in range(5)] == [200] * 5


@pytest.mark.parametrize("kind", ["memory", "fakeredis"])
async def test_a_backend_keeps_the_buckets_of_all_instances(kind: str):
    server, memory = fakeredis.FakeServer(), MemoryWebSocketConnectionBackend()

    def backend() -> Any:
        if kind == "memory":
            return memory
        return RedisWebSocketConnectionBackend(fakeredis.FakeAsyncRedis(server=server))

    first, second = backend(), backend()
    async with (
        running(
            Sockets,
            interceptor=WebSocketInterceptor(first),
            others=[RateLimitInterceptor(Rate(3, HOUR), by="user", backend=first)],
        ) as one,
        running(
            Sockets,
            interceptor=WebSocketInterceptor(second),
            others=[RateLimitInterceptor(Rate(3, HOUR), by="user", backend=second)],
        ) as two,
    ):
        async with client(one, "/ws?user=ana") as here, client(two, "/ws?user=ana") as there:
            codes = await here.codes(2) + await there.codes(2) + await here.codes(1)
            assert codes == ["", "", "", REFUSED, REFUSED]


class Away:
    """A backend that can be away.

    Attributes:
        asked: how often it was.
    """

    def __init__(self) -> None:
        self.asked = 0

    async def take_token(self, key: str, rate: Rate) -> float:
        self.asked += 1
        raise BackendUnavailable("it is away")


async def test_while_the_backend_is_away_each_process_counts_for_itself(caplog: pytest.LogCaptureFixture):
    away, now = Away(), 0.0
    limit = RateLimitInterceptor(Rate(3, HOUR), backend=away, clock=lambda: now)
    async with running(Sockets, others=[limit]) as app, client(app) as one:
        assert await one.codes(4) == ["", "", "", REFUSED]
        assert away.asked == 1
        now = 1.0
        assert await one.codes(1) == [REFUSED]
        assert away.asked == 2
    assert sum("each process for itself" in record.message for record in caplog.records) == 2


@pytest.mark.parametrize("wrong", [{"by": "room"}, {"backend": object()}])
def test_what_cannot_be(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        RateLimitInterceptor(Rate(1), **wrong)
