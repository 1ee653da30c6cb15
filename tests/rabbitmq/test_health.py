"""F42: one of Redis and RabbitMQ is away. The other half keeps its promise, and readiness names the part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.interceptors.health import HealthInterceptor
from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messagebus import MessageBusController, MessageHandler
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, Post, RestController, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import connect, lifespan
from tests.rabbitmq.applications import Broker, Placed
from tests.servers import RabbitMQServer, RedisServer
from tests.unit.messagebus.serving import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis]


class Told(WebSocketMessage):
    MESSAGE_ID = "test_health.told"


@RestController("")
class Rest:
    @Post("/tell")
    async def tell(self) -> None:
        await Told().send("a")

    @Post("/place")
    async def place(self) -> None:
        await Placed(number=1).publish()

    @WebSocketEndpoint("/listen")
    async def listen(self, connection: WebSocketConnection) -> None:
        await connection.join("a")
        await connection.closed.wait()


@MessageBusController()
class Counting:
    seen: list[int]

    @MessageHandler(Placed)
    async def count(self, message: Placed) -> None:
        self.seen.append(message.number)


class Probe:
    """What an orchestrator asks."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def failed(self) -> dict[str, str]:
        """The parts that are not well, with the reason; also checks the status."""
        answer = await self.http.get("/health/ready")
        failed = {part["name"]: part["reason"] for part in answer.json()["parts"] if not part["healthy"]}
        assert answer.status_code == (503 if failed else 200)
        assert "127.0.0.1" not in answer.text
        assert "guest" not in answer.text
        assert (await self.http.get("/health/live")).status_code == 200
        return failed

    async def until(self, *names: str) -> dict[str, str]:
        """Wait until exactly these parts are not well."""
        async with asyncio.timeout(20):
            while set(failed := await self.failed()) != set(names):  # noqa: ASYNC110 - it is asked, as by others
                await asyncio.sleep(0.02)
        return failed


@asynccontextmanager
async def served(broker: Broker, redis: RedisServer) -> AsyncIterator[tuple[Probe, httpx.AsyncClient, object]]:
    quick = timedelta(seconds=0.5)
    backend = RedisWebSocketConnectionBackend(redis.url, probe_interval=quick, publish_timeout=quick)
    bus = broker.bus(publish_timeout=timedelta(seconds=20))
    interceptors = [HealthInterceptor(), WebSocketInterceptor(backend), MessageBusInterceptor(bus)]
    app = create_http_server(Microservice(controllers=[Rest], interceptors=interceptors))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http,
        connect(app, "/listen") as browser,
    ):
        yield Probe(http), http, browser


async def test_f42_redis_away_and_then_rabbitmq(
    broker: Broker, rabbitmq_server: RabbitMQServer, redis_server: RedisServer
) -> None:
    Counting.seen = seen = []
    async with broker.worker(Counting) as working, served(broker, redis_server) as (probe, http, browser):
        await probe.until()

        redis_server.kill()
        assert await probe.until("redis") == {"redis": "it does not answer, or refuses what is published"}
        assert (await http.post("/tell")).status_code == 503
        assert (await http.post("/place")).status_code == 200, "the bus goes on"
        await until(lambda: seen == [1])
        await asyncio.to_thread(redis_server.start)
        await probe.until()

        await broker.survives_a_kill()
        await asyncio.to_thread(rabbitmq_server.kill)
        assert await probe.until("rabbitmq") == {"rabbitmq": "it does not answer"}
        assert (await http.post("/tell")).status_code == 200, "the rooms go on"
        async with asyncio.timeout(5):
            assert (await browser.receive_json())["MESSAGE_ID"] == "test_health.told"  # type: ignore[attr-defined]
        assert not working.healthy
        await asyncio.to_thread(rabbitmq_server.start)
        await probe.until()
        await until(lambda: working.healthy)
        assert (await http.post("/place")).status_code == 200
        await until(lambda: seen == [1, 1])


async def test_f42_a_rabbitmq_that_is_silent_is_not_ready_before_its_heartbeat_says_so(
    broker: Broker, rabbitmq_server: RabbitMQServer, redis_server: RedisServer
) -> None:
    async with served(broker, redis_server) as (probe, _, _):
        await probe.until()
        rabbitmq_server.pause()
        try:
            assert await probe.until("rabbitmq") == {"rabbitmq": "it does not answer"}
        finally:
            rabbitmq_server.resume()
        await probe.until()
