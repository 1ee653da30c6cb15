"""What fastapi_websocket_pubsub and fastapi_websocket_rpc show, here: topics, and calls both ways."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from websockets.asyncio.client import connect as connect_to

from jararaca_ws import (
    CallFailed,
    Microservice,
    Post,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketConnectionBackend,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRequest,
    WebSocketRouter,
)
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed
from tests.seeds.applications import Instance, heard, running, say, two_instances
from tests.servers import RedisServer, free_port
from tests.unit.played import until

# --- topics -----------------------------------------------------------------------------------------------------------


class Event(WebSocketMessage):
    MESSAGE_ID = "pubsub.event"

    data: Any


class Topic(Room[Event], pattern="topic-{name}"):
    """Any string is a topic; who may subscribe would be its ``authorize``."""

    name: str


@RestController("")
class PubSub:
    # Clients subscribe, unsubscribe and publish by themselves: to these rooms, and with this message.
    @WebSocketEndpoint("/pubsub", client_rooms=[Topic], client_sends=[Event])
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()

    @Post("/publish")
    async def publish(self, topics: list[str], data: list[Any]) -> None:
        await Event(data=data).send(*(Topic(name=topic) for topic in topics))


def pubsub(backend: WebSocketConnectionBackend | None = None) -> Microservice:
    return Microservice(controllers=[PubSub], interceptors=[WebSocketInterceptor(backend=backend)])


async def ask(browser: InLoopWebSocket, kind: str, **message: Any) -> None:
    """Join, leave or send, and wait for the answer; what is sent to the room may come first."""
    await say(browser, f"jararaca.{kind}", "1", **message)
    while "ref" not in (answer := await browser.receive_json()):
        pass
    assert answer["MESSAGE_ID"] == {"join": "jararaca.joined", "leave": "jararaca.left", "send": "jararaca.sent"}[kind]


async def publish(app: Instance, *topics: str, data: list[Any]) -> None:
    assert (await app.http.post("/publish", json={"topics": topics, "data": data})).status_code == 200


async def test_clients_subscribe_and_server_code_publishes():
    async with running(pubsub()) as app, app.browser("/pubsub") as ana, app.browser("/pubsub") as rui:
        await ask(ana, "join", rooms=["topic-news", "topic-sports"])
        await ask(rui, "join", rooms=["topic-sports"])
        await publish(app, "news", data=["my", {"data": 1}])
        await publish(app, "news", "sports", data=[2])
        await publish(app, "sports", data=[3])
        # Ana has subscribed to both topics, and gets what goes to both once.
        assert [(await heard(ana))["data"] for _ in range(3)] == [["my", {"data": 1}], [2], [3]]
        assert [(await heard(rui))["data"] for _ in range(2)] == [[2], [3]]
        await ask(ana, "leave", rooms=["topic-sports"])
        await publish(app, "sports", data=["not for ana"])
        await publish(app, "news", data=[4])
        assert (await heard(ana))["data"] == [4]


async def test_any_string_is_a_topic():
    async with running(pubsub()) as app, app.browser("/pubsub") as ana:
        await ask(ana, "join", rooms=["topic-größe%2C%20my%5Fevent"])  # in a name punctuation is written as in a URL
        await publish(app, "größe, my_event", data=[1])
        assert (await heard(ana))["data"] == [1]


@pytest.mark.redis
async def test_from_client_to_client_and_across_instances(redis_server: RedisServer):
    async with two_instances(pubsub, redis_server) as (one, other):
        async with one.browser("/pubsub") as ana, other.browser("/pubsub") as rui:
            for browser in (ana, rui):
                await ask(browser, "join", rooms=["topic-news"])
            await ask(ana, "send", room="topic-news", MESSAGE_ID=Event.MESSAGE_ID, message={"data": "from ana"})
            assert await heard(rui) == {"data": "from ana"}
            await publish(one, "news", data=["from the server"])
            assert (await heard(rui))["data"] == ["from the server"]


# --- calls ------------------------------------------------------------------------------------------------------------


class Concat(WebSocketMessage):
    MESSAGE_ID = "rpc.concat"

    a: str = ""
    b: str = ""


class Add(WebSocketMessage):
    MESSAGE_ID = "rpc.add"

    a: int
    b: int


class Sum(BaseModel):
    result: int
    of: list[int]


class Fail(WebSocketMessage):
    MESSAGE_ID = "rpc.fail"


def rpc() -> FastAPI:
    router = WebSocketRouter()

    @router.receive(Concat)
    async def concat(message: Concat) -> str:
        return message.a + message.b

    @router.receive(Add)
    async def add(message: Add) -> Sum:
        return Sum(result=message.a + message.b, of=[message.a, message.b])

    @router.receive(Fail)
    async def fail() -> None:
        raise RuntimeError("a secret")

    return hosting(router)


def hosting(router: WebSocketRouter) -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor().install(app)
    app.include_router(router, prefix="/ws")
    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """A real server, for a client that is none of ours."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, ws="websockets-sansio", log_level="warning"))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)
        try:
            yield f"ws://127.0.0.1:{port}/ws"
        finally:
            server.should_exit = True


async def reply(browser: InLoopWebSocket, ref: str) -> Any:
    frame = await browser.receive_json()
    assert (frame["MESSAGE_ID"], frame["ref"]) == ("jararaca.reply", ref)
    return frame["message"]


async def answer(browser: InLoopWebSocket, question: Any, message: Any) -> None:
    await browser.send_text(json.dumps({"MESSAGE_ID": "jararaca.reply", "ref": question["ref"], "message": message}))


async def test_a_client_of_any_kind_calls_and_gets_what_is_returned():
    async with served(rpc()) as url, connect_to(url) as client:
        await client.send(
            json.dumps({"MESSAGE_ID": "rpc.concat", "ref": "1", "message": {"a": "hello", "b": " world"}})
        )
        assert json.loads(await client.recv()) == {
            "MESSAGE_ID": "jararaca.reply",
            "ref": "1",
            "message": "hello world",
        }


async def test_arguments_are_validated_and_results_structured():
    async with running(rpc()) as app, app.browser("/ws") as client:
        await say(client, Add.MESSAGE_ID, "1", a=1, b=2)
        assert await reply(client, "1") == {"result": 3, "of": [1, 2]}
        await say(client, Concat.MESSAGE_ID, "2", b="defaults count")
        assert await reply(client, "2") == "defaults count"


@pytest.mark.parametrize(
    ("message_id", "fields", "code"),
    [("rpc.add", {"a": "x"}, "bad_request"), ("rpc.no_such", {}, "unknown_type"), ("rpc.fail", {}, "internal_error")],
)
async def test_a_call_that_fails_is_an_error_and_the_connection_goes_on(
    message_id: str, fields: dict[str, Any], code: str
):
    async with running(rpc()) as app, app.browser("/ws") as client:
        await say(client, message_id, "1", **fields)
        error = await client.receive_json()
        assert (error["MESSAGE_ID"], error["ref"], error["message"]["code"]) == ("jararaca.error", "1", code)
        assert "secret" not in json.dumps(error)
        await say(client, Concat.MESSAGE_ID, "2", a="still here")
        assert await reply(client, "2") == "still here"


class WhoAreYou(WebSocketRequest[str]):
    MESSAGE_ID = "rpc.who_are_you"


class Greeting(WebSocketMessage):
    MESSAGE_ID = "rpc.greeting"

    text: str


async def test_the_server_calls_its_client_when_it_connects():
    router = WebSocketRouter()

    @router.on_connect
    async def greet(connection: WebSocketConnection) -> None:
        await connection.accept()
        name = await connection.call(WhoAreYou(), timeout=timedelta(seconds=5))
        await connection.send(Greeting(text=f"hello {name}"))

    async with running(hosting(router)) as app, app.browser("/ws") as client:
        question = await client.receive_json()
        assert question["MESSAGE_ID"] == WhoAreYou.MESSAGE_ID
        await answer(client, question, "ana")
        assert await heard(client) == {"text": "hello ana"}


async def test_a_client_triggers_what_calls_it_later():
    """The reply comes first; the call that it has set off comes when something happens on the server."""
    router = WebSocketRouter()
    alarm = asyncio.Event()
    names: list[str] = []

    class Arm(WebSocketMessage):
        MESSAGE_ID = "rpc.arm"

    async def call_when_it_rings(connection: WebSocketConnection) -> None:
        await alarm.wait()
        names.append(await connection.call(WhoAreYou()))

    async with asyncio.TaskGroup() as ringing:

        @router.receive(Arm)
        async def arm(connection: WebSocketConnection) -> str:
            ringing.create_task(call_when_it_rings(connection))
            return "armed"

        async with running(hosting(router)) as app, app.browser("/ws") as client:
            await say(client, Arm.MESSAGE_ID, "1")
            assert await reply(client, "1") == "armed"
            alarm.set()
            await answer(client, await client.receive_json(), "ana")
            await until(lambda: names == ["ana"])


class Bid(WebSocketMessage):
    MESSAGE_ID = "rpc.bid"

    amount: int


class Counter(WebSocketRequest[int]):
    MESSAGE_ID = "rpc.counter"

    amount: int


async def test_calls_within_calls():
    """Each side asks the other before it answers: a negotiation. Handlers that wait for each other run side by side."""
    router = WebSocketRouter(concurrency=4)

    @router.receive(Bid)
    async def bid(message: Bid, connection: WebSocketConnection) -> int:
        if message.amount >= 100:
            return message.amount
        return await connection.call(Counter(amount=message.amount * 2))

    async with running(hosting(router)) as app, app.browser("/ws") as client:
        await say(client, Bid.MESSAGE_ID, "first", amount=40)
        counters = [await client.receive_json()]
        assert counters[-1]["message"] == {"amount": 80}
        await say(client, Bid.MESSAGE_ID, "second", amount=90)  # before the counter offer is answered
        counters.append(await client.receive_json())
        assert counters[-1]["message"] == {"amount": 180}
        await say(client, Bid.MESSAGE_ID, "third", amount=170)
        assert await reply(client, "third") == 170
        for ref, counter in (("second", counters[1]), ("first", counters[0])):
            await answer(client, counter, 170)
            assert await reply(client, ref) == 170


async def test_a_client_that_goes_in_the_middle_of_a_call_is_an_error_of_the_call():
    router = WebSocketRouter()
    errors: list[Exception] = []

    @router.receive(Concat)
    async def concat(connection: WebSocketConnection) -> None:
        try:
            await connection.call(WhoAreYou())
        except Exception as error:
            errors.append(error)
            raise

    async with running(hosting(router)) as app:
        async with app.browser("/ws") as client:
            await say(client, Concat.MESSAGE_ID, "1")
            ref = (await client.receive_json())["ref"]
            await say(client, "jararaca.error", ref, code="busy")
            assert (await client.receive_json())["message"]["code"] == "call_failed"
        async with app.browser("/ws") as client:
            await say(client, Concat.MESSAGE_ID, "1")
            await client.receive_json()
    assert [type(error).__name__ for error in errors] == [CallFailed.__name__, "ConnectionClosed"]


async def test_connections_are_authenticated_with_dependencies():
    async def user(x_token: Annotated[str, Header()]) -> str:
        if x_token != "secret":
            raise HTTPException(401)
        return "ana"

    router = WebSocketRouter()

    @router.on_connect
    async def connect(connection: WebSocketConnection, user: Annotated[str, Depends(user)]) -> None:
        await connection.identify(user)

    @router.receive(Concat)
    async def concat(connection: WebSocketConnection) -> str | None:
        return connection.user_id

    async with running(hosting(router)) as app:
        with pytest.raises(WebSocketClosed) as refused:
            async with app.browser("/ws", headers={"X-Token": "wrong"}):
                pass
        assert refused.value.status == 401
        async with app.browser("/ws", headers={"X-Token": "secret"}) as client:
            await say(client, Concat.MESSAGE_ID, "1")
            assert await reply(client, "1") == "ana"
