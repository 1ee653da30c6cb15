"""What fastapi-channels shows, here: groups, users, broadcasts from anywhere, middleware around messages, a chat."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import msgpack
import pytest
from fastapi import Depends, FastAPI, HTTPException, Query, WebSocketException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from jararaca_ws import (
    AppTransactionContext,
    ErrorCategory,
    Get,
    JararacaError,
    MemoryWebSocketConnectionBackend,
    Microservice,
    Post,
    PresenceSettings,
    Rate,
    RateLimitInterceptor,
    Receive,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketConnectionBackend,
    WebSocketConnectionManager,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketTransactionData,
    current_connection,
    provide_ws_manager,
    recoverable,
    use_ws_manager,
)
from jararaca_ws.testing import InLoopWebSocket
from tests.seeds.applications import Instance, heard, running, say, two_instances
from tests.servers import RedisServer


class Welcome(WebSocketMessage):
    MESSAGE_ID = "channels.welcome"

    user: str
    users: list[str]


class Posted(WebSocketMessage):
    MESSAGE_ID = "channels.posted"
    DELIVERY = recoverable(size=50)  # kept by the room: what the seed has a database for

    text: Annotated[str, Field(min_length=1, max_length=200)]
    by: str = ""


class Typing(WebSocketMessage):
    MESSAGE_ID = "channels.typing"

    by: str = ""


class Announcement(WebSocketMessage):
    MESSAGE_ID = "channels.announcement"

    text: str


class Text(BaseModel):
    text: str


@RestController("/api")
class ChatController:
    # What a consumer is there: connect, receive, disconnect.
    @WebSocketEndpoint("/ws/{room}/{user}", accept=False)
    async def connect(self, connection: WebSocketConnection, room: str, user: str) -> None:
        await connection.identify(user)
        await connection.join(room)
        present = await use_ws_manager().presence(room)
        await connection.accept()
        await connection.send(Welcome(user=user, users=sorted(one.user_id or "" for one in present)))

    @Receive(Posted)
    async def posted(self, message: Posted, room: str, connection: WebSocketConnection) -> None:
        await Posted(text=message.text, by=connection.user_id or "").send(room)

    @Receive(Typing)
    async def typing(self, room: str, connection: WebSocketConnection) -> None:
        await Typing(by=connection.user_id or "").send(room, exclude=connection)

    # What the world outside asks for.
    @Get("/rooms/{room}/messages")
    async def messages(self, room: str, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> dict[str, Any]:
        history = await use_ws_manager().history(room, limit=limit)
        kept = [entry.message for entry in history.messages]
        return {"room": room, "texts": [message.text for message in kept if isinstance(message, Posted)]}

    @Post("/announce")
    async def announce(self, body: Text) -> None:
        await use_ws_manager().broadcast(Announcement(text=body.text))

    @Post("/room/{room}/message")
    async def to_room(self, room: str, body: Text) -> None:
        await Posted(text=body.text, by="the server").send(room)

    @Post("/user/{user}/notification")
    async def to_user(self, user: str, body: Text) -> None:
        await use_ws_manager().send_to_user(user, Announcement(text=body.text))


def chat(backend: WebSocketConnectionBackend | None = None, *others: Any) -> Microservice:
    return Microservice(
        controllers=[ChatController],
        interceptors=[WebSocketInterceptor(backend=backend, presence=PresenceSettings()), *others],
    )


@asynccontextmanager
async def entered(app: Instance, room: str, user: str) -> AsyncIterator[tuple[InLoopWebSocket, list[str]]]:
    """A browser in a room, and who was there."""
    async with app.browser(f"/api/ws/{room}/{user}") as browser:
        welcome = await heard(browser)
        assert welcome["user"] == user
        yield browser, welcome["users"]


async def post(app: Instance, path: str, text: str) -> None:
    assert (await app.http.post(path, json={"text": text})).status_code == 200


async def talk(one: Instance, other: Instance) -> None:
    """Ana on one instance, Rui on the other, Eva in another room: groups, users, everybody."""
    async with entered(one, "lobby", "ana") as (ana, _), entered(other, "kitchen", "eva") as (eva, _):
        async with entered(other, "lobby", "rui") as (rui, users):
            assert users in (["ana", "rui"], ["rui"])  # what the other instance did follows within moments
            await say(ana, Posted.MESSAGE_ID, text="hello")
            assert await heard(ana, rui) == {"text": "hello", "by": "ana"}
            await say(rui, Typing.MESSAGE_ID)
            await say(rui, Posted.MESSAGE_ID, text="hi")
            assert await heard(ana) == {"by": "rui"}
            assert await heard(ana, rui) == {"text": "hi", "by": "rui"}, "who types is not told that"
            await post(one, "/api/room/lobby/message", "from REST")
            assert await heard(ana, rui) == {"text": "from REST", "by": "the server"}
            await post(one, "/api/user/eva/notification", "for Eva")
            await post(one, "/api/announce", "for all")
            assert [(await heard(eva))["text"] for _ in range(2)] == ["for Eva", "for all"]
            assert await heard(ana, rui) == {"text": "for all"}
        history = await other.http.get("/api/rooms/lobby/messages", params={"limit": 2})
        assert history.json() == {"room": "lobby", "texts": ["hi", "from REST"]}
        for limit in (0, 1001):
            assert (await other.http.get("/api/rooms/lobby/messages", params={"limit": limit})).status_code == 422


async def test_a_chat_on_one_instance():
    async with running(chat(MemoryWebSocketConnectionBackend())) as app:
        await talk(app, app)


@pytest.mark.redis
async def test_the_same_chat_on_two_instances(redis_server: RedisServer):
    async with two_instances(chat, redis_server) as (one, other):
        await talk(one, other)


@pytest.mark.redis
async def test_code_outside_of_the_application_sends_to_groups_users_and_all(redis_server: RedisServer):
    """A Celery task, a script, a listener of database events: any process with a started manager."""

    async def task() -> None:
        async with WebSocketConnectionManager(RedisWebSocketConnectionBackend(redis_server.url)) as manager:
            with provide_ws_manager(manager):
                await update_the_lobby()
            await manager.send_to_user("ana", Announcement(text="for Ana"))
            await manager.broadcast(Announcement(text="for all"))

    async def update_the_lobby() -> None:
        # Deep down, and nothing was passed on: as with a global channel layer.
        await Announcement(text="for the lobby").send("lobby")

    async with two_instances(chat, redis_server) as (one, other):
        async with entered(one, "lobby", "ana") as (ana, _), entered(other, "lobby", "rui") as (rui, _):
            await task()
            assert [(await heard(ana))["text"] for _ in range(3)] == ["for the lobby", "for Ana", "for all"]
            assert [(await heard(rui))["text"] for _ in range(2)] == ["for the lobby", "for all"]


async def test_a_background_task_of_the_application_sends():
    changed = asyncio.Event()

    async def watch() -> None:
        await changed.wait()
        await Announcement(text="it changed").send("lobby")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(watch())
        yield
        await task

    app = FastAPI(lifespan=lifespan)
    WebSocketInterceptor().install(app)

    @app.websocket("/ws")
    async def serve(me: WebSocketConnection = Depends(current_connection)) -> None:
        await me.join("lobby")
        await me.accept()
        await me.closed.wait()

    async with running(app) as instance, instance.browser("/ws") as browser:
        changed.set()
        assert await heard(browser) == {"text": "it changed"}


# --- middleware -------------------------------------------------------------------------------------------------------


class Around:
    """What a middleware is there: around every message, before its handler and after it."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name = name
        self.steps = steps

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        data = app_context.transaction_data
        if not isinstance(data, WebSocketTransactionData) or data.message is None:
            yield
            return
        kind = type(data.message).__name__
        self.steps.append(f"{self.name} before {kind}")
        try:
            yield
        except HTTPException as error:
            self.steps.append(f"{self.name} after {kind}: {error.status_code}")
            raise
        self.steps.append(f"{self.name} after {kind}")


class OnlyPoliteTexts:
    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        data = app_context.transaction_data
        message = data.message if isinstance(data, WebSocketTransactionData) else None
        if isinstance(message, Posted) and "please" not in message.text:
            raise HTTPException(403)
        yield


async def test_interceptors_chain_around_messages_and_may_refuse_them():
    steps: list[str] = []
    app = chat(None, Around("outer", steps), OnlyPoliteTexts(), Around("inner", steps))
    async with running(app) as instance, entered(instance, "lobby", "ana") as (ana, _):
        await say(ana, Posted.MESSAGE_ID, "1", text="now!")
        assert (await heard(ana))["code"] == "permission_denied"
        await say(ana, Posted.MESSAGE_ID, text="please")
        assert (await heard(ana))["text"] == "please"
    assert steps == [
        "outer before Posted",
        "outer after Posted: 403",
        "outer before Posted",
        "inner before Posted",
        "inner after Posted",
        "outer after Posted",
    ]


@pytest.mark.redis
async def test_so_many_messages_of_a_user_in_a_minute_on_all_instances(redis_server: RedisServer):
    def limited(backend: WebSocketConnectionBackend) -> Microservice:
        assert isinstance(backend, RedisWebSocketConnectionBackend)
        rate = Rate(3, timedelta(minutes=1))
        return chat(backend, RateLimitInterceptor(rate, by="user", excluded=[Typing], backend=backend))

    async with two_instances(limited, redis_server) as (one, other):
        async with entered(one, "lobby", "ana") as (here, _), entered(other, "kitchen", "ana") as (there, _):
            for browser, text in ((here, "1"), (there, "2"), (here, "3")):
                await say(browser, Posted.MESSAGE_ID, text=text)
                assert (await heard(browser))["text"] == text
            for browser in (here, there):
                await say(browser, Posted.MESSAGE_ID, "1", text="too much")
                error = await heard(browser)
                assert error["code"] == "rate_limited"
                assert 0 < error["retry_after_ms"] <= 60_000
            async with entered(other, "lobby", "rui") as (rui, _):
                await say(here, Typing.MESSAGE_ID)  # not counted
                assert await heard(rui) == {"by": "ana"}
                await say(rui, Posted.MESSAGE_ID, text="another user")
                assert (await heard(here))["text"] == "another user"


async def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JARARACA_WS_MAX_MESSAGE_BYTES", "100")
    async with running(chat()) as app, entered(app, "lobby", "ana") as (ana, _):
        await say(ana, Posted.MESSAGE_ID, text="x" * 100)
        assert (await ana.closed()).code == 1009


async def test_messages_are_validated_before_any_code_sees_them():
    steps: list[str] = []
    async with running(chat(None, Around("it", steps))) as instance, entered(instance, "lobby", "ana") as (ana, _):
        for wrong in ({}, {"text": ""}, {"text": "x" * 201}, {"text": 7}):
            async with entered(instance, "lobby", "rui") as (rui, _):
                await say(rui, Posted.MESSAGE_ID, "1", **wrong)
                assert (await heard(rui))["code"] == "bad_request"
        assert steps == []
        await say(ana, Posted.MESSAGE_ID, text="right")
        assert (await heard(ana))["text"] == "right"


# --- errors -----------------------------------------------------------------------------------------------------------


class Break(WebSocketMessage):
    MESSAGE_ID = "channels.break"


async def test_an_error_of_a_handler_has_an_id_and_tells_the_client_nothing(caplog: pytest.LogCaptureFixture):
    class Fragile(ChatController):
        @Receive(Break)
        async def breaks(self) -> None:
            raise RuntimeError("the password is 1234")

    app = Microservice(controllers=[Fragile], interceptors=[WebSocketInterceptor(presence=PresenceSettings())])
    async with running(app) as instance, entered(instance, "lobby", "ana") as (ana, _):
        await say(ana, Break.MESSAGE_ID, "1")
        frame = await ana.receive()
        assert "1234" not in str(frame)
        error_id = caplog.records[-1].getMessage().split("(error ")[1].rstrip(")")
        assert error_id in str(frame)
        assert caplog.records[-1].levelno == logging.ERROR
        await say(ana, Posted.MESSAGE_ID, text="still here")
        assert (await heard(ana))["text"] == "still here"


class Buy(WebSocketMessage):
    MESSAGE_ID = "channels.buy"

    what: str


class SoldOut(JararacaError):
    category = ErrorCategory.VALIDATION
    code = "sold_out"
    close_code = 4600
    retry_after = timedelta(seconds=2)


async def test_errors_of_your_own_say_whether_to_come_back_and_how_a_socket_ends():
    class Shop:
        @WebSocketEndpoint("/shop")
        async def enter(self, what: str = "bread") -> None:
            if what == "fish":
                raise SoldOut(what)  # uncaught in the endpoint: the socket ends with its code

        @Receive(Buy)
        async def buy(self, message: Buy) -> None:
            if message.what == "cake":
                raise SoldOut(message.what)  # in a handler the connection goes on
            raise WebSocketException(4601, "we close")

    app = Microservice(controllers=[Shop], interceptors=[WebSocketInterceptor()])
    async with running(app) as instance:
        async with instance.browser("/shop") as client:
            await say(client, Buy.MESSAGE_ID, "1", what="cake")
            error = await heard(client)
            assert error.pop("id")
            assert error == {"code": "sold_out", "retry_after_ms": 2000}
            await say(client, Buy.MESSAGE_ID, what="bread")
            assert (await client.closed()).code == 4601
        async with instance.browser("/shop?what=fish") as client:
            assert (await client.closed()).code == 4600


# --- what is served beside it -----------------------------------------------------------------------------------------


async def test_text_and_binary_frames_of_one_client():
    app = FastAPI()
    WebSocketInterceptor().install(app)

    @app.websocket("/ws")
    async def echo(me: WebSocketConnection = Depends(current_connection)) -> None:
        await me.accept()
        while (frame := await me.websocket.receive())["type"] == "websocket.receive":
            if "text" in frame:
                await me.websocket.send_text(frame["text"])
            else:
                await me.websocket.send_bytes(frame["bytes"])

    async with running(app) as instance, instance.browser("/ws") as browser:
        await browser.send_text("text")
        await browser.send_bytes(b"\0")
        assert [await browser.receive(), await browser.receive()] == ["text", b"\0"]


async def test_one_client_speaks_json_and_another_msgpack():
    """A serializer is not the server's one choice for all: each client has its own, by subprotocol."""
    async with running(chat()) as app, entered(app, "lobby", "ana") as (ana, _):
        async with app.browser("/api/ws/lobby/rui", subprotocols=["jararaca.v1.msgpack", "jararaca.v1"]) as rui:
            assert isinstance(await rui.receive(), bytes)  # its welcome
            envelope = {"MESSAGE_ID": Posted.MESSAGE_ID, "message": {"text": "hello"}}
            await rui.send_bytes(msgpack.packb(envelope))
            assert await heard(ana) == {"text": "hello", "by": "rui"}
            while (told := msgpack.unpackb(await rui.receive()))["MESSAGE_ID"] != Posted.MESSAGE_ID:
                pass
            assert told["message"] == {"text": "hello", "by": "rui"}


async def test_pages_and_middlewares_of_the_application_stay_as_they_are():
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["https://example.org"])
    WebSocketInterceptor().install(app)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return "<h1>Chat</h1>"

    async with running(app) as instance:
        response = await instance.http.get("/", headers={"Origin": "https://example.org"})
        assert response.text == "<h1>Chat</h1>"
        assert response.headers["access-control-allow-origin"] == "https://example.org"
