"""What Jararaca's WebSockets show, here: REST in, WebSocket out, rooms across instances, and the message bus."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from pydantic import BaseModel
from redis.asyncio import Redis

from jararaca_ws import (
    MemoryMessageBus,
    Message,
    MessageBusController,
    MessageBusInterceptor,
    MessageHandler,
    MessageOf,
    Microservice,
    Post,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnectionBackend,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    create_http_server,
    use_ws_manager,
)
from jararaca_ws.testing import InLoopWebSocket, connect, lifespan
from tests.seeds.applications import Instance, heard, running, two_instances
from tests.servers import RedisServer


class TableMessage(WebSocketMessage):
    MESSAGE_ID = "jararaca_seed.table"

    text: str


class Maintenance(WebSocketMessage):
    MESSAGE_ID = "jararaca_seed.maintenance"

    minutes: int


class PlayerMoved(Message):
    MESSAGE_TOPIC = "jararaca_seed.moved"

    player: str


class Says(BaseModel):
    text: str


@RestController("/tables")
@MessageBusController()
class TableController:
    """Clients send through REST, and get through a socket that nobody reads."""

    @Post("/{table}/says")
    async def says(self, table: str, body: Says) -> None:
        await TableMessage(text=body.text).send(table)

    @Post("/{table}/and/{other}")
    async def both(self, table: str, other: str) -> None:
        await TableMessage(text="by the message").send(table, other)
        await use_ws_manager().send([table, other], TableMessage(text="by the manager"))

    @Post("/maintenance")
    async def maintenance(self) -> None:
        await use_ws_manager().broadcast(Maintenance(minutes=5).model_dump_json().encode())

    @Post("/moves/{player}")
    async def moves(self, player: str) -> None:
        await PlayerMoved(player=player).publish()

    @MessageHandler(PlayerMoved)
    async def moved(self, message: MessageOf[PlayerMoved]) -> None:
        await TableMessage(text="your move was taken").send(f"player-{message.payload().player}")

    @WebSocketEndpoint("/ws/{table}")
    async def table(self, websocket: WebSocket, table: str) -> None:
        await websocket.accept()
        manager = use_ws_manager()
        await manager.add_websocket(websocket)
        await manager.join([table], websocket)
        await websocket.send_text("joined")
        try:
            while True:
                await websocket.receive()
        except Exception:
            await manager.remove_websocket(websocket)


def application(backend: WebSocketConnectionBackend | None = None) -> Microservice:
    return Microservice(
        controllers=[TableController],
        interceptors=[WebSocketInterceptor(backend=backend), MessageBusInterceptor(bus=MemoryMessageBus())],
    )


async def ok(app: Instance, path: str, **options: Any) -> None:
    assert (await app.http.post(path, **options)).status_code == 200


@contextlib.asynccontextmanager
async def at(asgi: FastAPI, table: str) -> AsyncIterator[InLoopWebSocket]:
    """A browser; the endpoint joins after it has accepted, so it waits for the word that it has."""
    async with connect(asgi, f"/tables/ws/{table}") as browser:
        assert await browser.receive() == "joined"
        yield browser


@pytest.mark.redis
async def test_rest_on_one_instance_reaches_the_room_on_both(redis_server: RedisServer):
    async with two_instances(application, redis_server) as (one, other):
        async with at(one.asgi, "t1") as ana, at(other.asgi, "t1") as rui:
            async with at(other.asgi, "t2") as eva:
                await ok(one, "/tables/t1/says", json={"text": "hello"})
                assert await heard(ana, rui) == {"text": "hello"}
                await ok(other, "/tables/t1/and/t2")
                # The manager sends at once, a message when the request has succeeded.
                assert await heard(ana, rui, eva) == {"text": "by the manager"}
                assert await heard(ana, rui, eva) == {"text": "by the message"}


@pytest.mark.redis
async def test_bytes_are_broadcast_as_they_are(redis_server: RedisServer):
    async with two_instances(application, redis_server) as (one, other):
        async with at(one.asgi, "t1") as ana, at(other.asgi, "t2") as rui:
            await ok(one, "/tables/maintenance")
            for browser in (ana, rui):
                assert await browser.receive_json() == {"minutes": 5}


async def test_a_handler_of_the_message_bus_sends_to_browsers():
    async with running(application()) as app, at(app.asgi, "player-ana") as ana:
        await ok(app, "/tables/moves/ana")
        assert await heard(ana) == {"text": "your move was taken"}


@pytest.mark.redis
async def test_the_backend_takes_a_client_and_the_names_of_two_redis_channels(redis_server: RedisServer):
    def tables(prefix: str) -> FastAPI:
        backend = RedisWebSocketConnectionBackend(
            conn=Redis.from_url(redis_server.url, decode_responses=False),
            send_pubsub_channel=f"{prefix}:send",
            broadcast_pubsub_channel=f"{prefix}:broadcast",
        )
        return create_http_server(application(backend))

    async with contextlib.AsyncExitStack() as stack:
        browsers, clients = [], []
        for app in (tables("one"), tables("one"), tables("two")):
            await stack.enter_async_context(lifespan(app))
            http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
            clients.append(await stack.enter_async_context(http))
            browsers.append(await stack.enter_async_context(at(app, "t1")))
        await clients[0].post("/tables/t1/says", json={"text": "for one"})
        await clients[2].post("/tables/t1/says", json={"text": "for two"})
        assert await heard(*browsers[:2]) == {"text": "for one"}
        assert await heard(browsers[2]) == {"text": "for two"}
