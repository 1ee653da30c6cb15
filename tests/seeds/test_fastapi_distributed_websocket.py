"""What fastapi-distributed-websocket shows, here: JSON that is passed on to everybody, and rooms, on any instance."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import json
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from jararaca_ws import (
    WebSocketConnection,
    WebSocketConnectionBackend,
    WebSocketInterceptor,
    WebSocketMessage,
    current_connection,
    use_ws_manager,
)
from jararaca_ws.testing import connect, lifespan
from tests.seeds.applications import heard, running, say, two_instances
from tests.servers import RedisServer
from tests.unit.played import until


class Said(WebSocketMessage):
    MESSAGE_ID = "distributed_websocket.said"

    text: str


def application(backend: WebSocketConnectionBackend | None = None) -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor(backend=backend).install(app)

    # Starting, stopping, taking the connection in and letting it go: nothing of that is the endpoint's to do.
    @app.websocket("/ws/{name}")
    async def everybody(name: str, me: WebSocketConnection = Depends(current_connection)) -> None:
        await me.accept()
        async for sent in me.iter_json():
            await use_ws_manager().broadcast(json.dumps({"from": name, "sent": sent}).encode())

    @app.websocket("/chat")
    async def chat(topic: str, me: WebSocketConnection = Depends(current_connection)) -> None:
        await me.join(topic)
        await me.accept()
        async for message in me:
            if isinstance(message, Said):
                await message.send(topic)

    return app


async def test_what_a_client_sends_is_broadcast_to_all():
    async with running(application()) as app, app.browser("/ws/ana") as ana, app.browser("/ws/rui") as rui:
        for sent in ({"any": ["shape", 1, None]}, "text", 7):
            await ana.send_text(json.dumps(sent))
            for browser in (ana, rui):
                assert await browser.receive_json() == {"from": "ana", "sent": sent}


@pytest.mark.redis
async def test_the_same_endpoint_broadcasts_to_all_instances(redis_server: RedisServer):
    async with two_instances(application, redis_server) as (one, other):
        async with one.browser("/ws/ana") as ana, one.browser("/ws/eva") as eva, other.browser("/ws/rui") as rui:
            for name, sender in (("ana", ana), ("rui", rui)):
                await sender.send_text('{"x": 1}')
                for browser in (ana, eva, rui):
                    assert await browser.receive_json() == {"from": name, "sent": {"x": 1}}


@pytest.mark.redis
async def test_a_chat_room_has_members_on_several_instances(redis_server: RedisServer):
    async with two_instances(application, redis_server) as (one, other):
        async with (
            one.browser("/chat?topic=xyz") as ana,
            other.browser("/chat?topic=xyz") as rui,
            other.browser("/chat?topic=abc") as elsewhere,
        ):
            await say(ana, Said.MESSAGE_ID, text="hello")
            assert await heard(ana, rui) == {"text": "hello"}
            await say(elsewhere, Said.MESSAGE_ID, text="who is here?")
            # The first thing that the other room hears: not the hello.
            assert await heard(elsewhere) == {"text": "who is here?"}


async def test_connections_are_let_go_without_a_word_of_the_endpoint():
    app = FastAPI()
    websockets = WebSocketInterceptor()
    websockets.install(app)
    held: list[WebSocketConnection] = []

    @app.websocket("/ws")
    async def serve(me: WebSocketConnection = Depends(current_connection)) -> None:
        held.append(me)
        await me.accept()
        await me.closed.wait()

    manager = websockets.manager
    async with lifespan(app), connect(app, "/ws") as first, connect(app, "/ws") as second, connect(app, "/ws") as third:
        assert list(manager.connections) == held
        await first.close()
        await until(lambda: len(manager.connections) == 2)
        # Only let go: its socket stays open.
        await manager.remove_websocket(held[1])
        await manager.broadcast(Said(text="for the third"))
        assert await heard(third) == {"text": "for the third"}
        assert held[1].alive
        await held[1].close(4503, "enough")
        end = await second.closed()
        assert (end.code, end.reason) == (4503, "enough")
    assert not manager.connections


async def test_what_is_started_and_stopped_with_the_application_is_ours():
    app = FastAPI()
    websockets = WebSocketInterceptor()
    websockets.install(app)

    @app.websocket("/ws")
    async def serve(me: WebSocketConnection = Depends(current_connection)) -> None:
        await me.accept()
        await me.closed.wait()

    states: list[Any] = [websockets.health()[0].healthy]
    async with lifespan(app):
        states.append(websockets.health()[0].healthy)
        socket = connect(app, "/ws")
        browser = await socket.__aenter__()
    states.append(websockets.health()[0].healthy)
    assert states == [False, True, False]
    assert (await browser.closed()).code == 1012
    await socket.__aexit__(None, None, None)
