"""To all but the sender, on every kind of backend and any instance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.context import provide_ws_manager
from jararaca_ws.delivery import latest, recoverable
from jararaca_ws.errors import BadConnectionId
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Post, RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import connect
from tests.servers import RedisServer
from tests.unit.apps import running
from tests.unit.clusters import Cluster, MakeBackend, cluster
from tests.unit.played import Socket, until

Started = Callable[[], AbstractAsyncContextManager[Cluster]]


class Said(WebSocketMessage):
    MESSAGE_ID = "test_exclude.said"

    text: str = "hi"


class Cursor(WebSocketMessage):
    MESSAGE_ID = "test_exclude.cursor"
    DELIVERY = latest(key="text")

    text: str = "hi"


class Kept(WebSocketMessage):
    MESSAGE_ID = "test_exclude.kept"
    DELIVERY = recoverable(size=10, ttl=timedelta(minutes=1))

    text: str = "hi"


@pytest.fixture
def two(make: MakeBackend) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[Cluster]:
        async with cluster(*(WebSocketConnectionManager(make()) for _ in range(2))) as instances:
            yield instances

    return started


def seen(socket: Socket) -> list[Any]:
    return [json.loads(frame) for frame in socket.server.frames]


def texts(socket: Socket) -> list[str]:
    return [frame["message"]["text"] for frame in seen(socket) if "text" in frame["message"]]


@pytest.mark.parametrize("message", [Said, Cursor])
@pytest.mark.parametrize("where", [0, 1])
async def test_all_but_the_sender_get_it_wherever_it_is_published(
    two: Started, where: int, message: type[Said] | type[Cursor]
):
    async with two() as instances:
        one, other, far = [await instances.socket(n, "a", "b") for n in (0, 0, 1)]
        with provide_ws_manager(instances.managers[where]):
            await message(text="1").send("a", exclude=one.connection)
            await message(text="2").send_now("a", "b", exclude=one.connection.id)
            await message(text="3").send("b")
        for socket in (other, far):
            await until(lambda socket=socket: len(texts(socket)) == 3)
            assert texts(socket) == ["1", "2", "3"]
        await until(lambda: texts(one))
        assert texts(one) == ["3"]


async def test_what_is_excluded_has_the_id_of_a_connection(two: Started):
    async with two() as instances:
        for bad in ("", "ana", "x\n{}"):
            with pytest.raises(BadConnectionId):
                await instances.managers[0].send(["a"], Said(), exclude=bad)


async def test_one_that_has_gone_excludes_nobody(two: Started):
    async with two() as instances:
        gone, there = await instances.socket(0, "a"), await instances.socket(1, "a")
        gone.server.disconnect()
        await gone.ended()
        await instances.managers[0].send(["a"], Said(), exclude=gone.connection)
        await until(lambda: texts(there))


class TestKept:
    @pytest.fixture
    def make(self, redis_server: RedisServer) -> MakeBackend:
        return lambda: RedisWebSocketConnectionBackend(redis_server.url)

    async def test_the_sender_is_told_how_far_the_room_has_come(self, two: Started):
        async with two() as instances:
            plain = await instances.socket(0, "a", "b")
            one = await instances.socket(0, "a", "b", v1=True)
            far = await instances.socket(1, "a", "b", v1=True)
            manager = instances.managers[1]
            await manager.send(["a", "b"], Kept(text="1"), exclude=one.connection)
            await manager.send(["a"], Kept(text="2"))
            for socket in (plain, far):
                await until(lambda socket=socket: len(texts(socket)) == 2)
                assert texts(socket) == ["1", "2"]
            await until(lambda: texts(one))
            assert texts(one) == ["2"]
            told = {
                (frame["message"]["room"], frame["message"]["offset"])
                for frame in seen(one)
                if frame["MESSAGE_ID"] == "jararaca.position"
            }
            assert {("a", 1), ("b", 1)} <= told  # what it did not get is no hole
            assert [(frame["room"], frame["offset"]) for frame in seen(one) if "offset" in frame] == [("a", 2)]

    async def test_the_history_has_it_as_it_was_sent(self, two: Started):
        async with two() as instances:
            one = await instances.socket(0, "a")
            await instances.managers[0].send(["a"], Kept(text="1"), exclude=one.connection)
            [kept] = (await instances.managers[1].history("a")).messages
            assert kept.message == Kept(text="1")
            assert json.loads(kept.data)["message"] == {"text": "1"}


@RestController()
class Chat:
    @WebSocketEndpoint("/chat")
    async def chat(self, connection: WebSocketConnection) -> None:
        await connection.join("a")
        async for message in connection:
            assert isinstance(message, Said)
            await message.send("a", exclude=connection)
            await connection.send(Said(text=connection.id))

    @Post("/say")
    async def say(self, exclude: str) -> None:
        await Said(text="staged").send("a", exclude=exclude)


async def test_an_endpoint_and_a_staged_send():
    async with running(Chat) as app, connect(app.asgi, "/chat") as one, connect(app.asgi, "/chat") as other:
        await until(lambda: len(app.manager.members("a")) == 2)
        await one.send_text('{"MESSAGE_ID":"test_exclude.said","message":{"text":"x"}}')
        own_id = (await one.receive_json())["message"]["text"]
        assert (await other.receive_json())["message"] == {"text": "x"}
        assert (await app.http.post("/say", params={"exclude": own_id})).status_code == 200
        assert (await other.receive_json())["message"] == {"text": "staged"}
        assert (await app.http.post("/say", params={"exclude": "nobody"})).status_code == 400
        await app.manager.send(["a"], Said(text="end"))
        assert (await one.receive_json())["message"] == {"text": "end"}
