"""What fastapi-ws-router shows, here: handlers by pydantic model, hooks, a dispatcher; and what it says it cannot."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, WebSocket
from pydantic import BaseModel, ValidationError

from jararaca_ws import InvalidMessage, WebSocketConnection, WebSocketInterceptor, WebSocketMessage, WebSocketRouter
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed
from tests.seeds.applications import heard, running, say


class ChatMessage(BaseModel):
    action: Literal["message"]
    message: str


class ChatActivity(BaseModel):
    action: Literal["activity"]
    activity: str


MESSAGE = '{"action": "message", "message": "hello"}'
ACTIVITY = '{"action": "activity", "activity": "typing"}'


def application(*routers: APIRouter, prefix: str = "/ws") -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor().install(app)
    for router in routers:
        app.include_router(router, prefix=prefix)
    return app


async def answers(browser: InLoopWebSocket, *texts: str) -> list[Any]:
    for text in texts:
        await browser.send_text(text)
    return [await browser.receive() for _ in texts]


@pytest.mark.parametrize("discriminator", ["action", None])
async def test_a_handler_for_each_model(discriminator: str | None):
    router = WebSocketRouter(discriminator=discriminator)

    @router.receive(ChatMessage)
    async def on_chat_message(websocket: WebSocket, data: ChatMessage) -> None:
        await websocket.send_text(f"Got message: {data.message}")

    @router.receive(ChatActivity)
    async def on_chat_activity(websocket: WebSocket, data: ChatActivity) -> None:
        await websocket.send_text(f"Got activity: {data.activity}")

    async with running(application(router)) as app, app.browser("/ws") as browser:
        assert await answers(browser, MESSAGE, ACTIVITY) == ["Got message: hello", "Got activity: typing"]


async def test_a_handler_asks_for_what_it_needs_and_returns_the_answer():
    """No first and second argument by decree; what is returned goes back."""
    router = WebSocketRouter(discriminator="action")

    @router.receive(ChatMessage)
    async def on_chat_message(data: ChatMessage) -> ChatActivity:
        return ChatActivity(action="activity", activity=data.message.upper())

    @router.receive(ChatActivity)
    async def on_chat_activity() -> str:
        return "seen"

    async with running(application(router)) as app, app.browser("/ws") as browser:
        assert [json.loads(one) for one in await answers(browser, MESSAGE, ACTIVITY)] == [
            {"action": "activity", "activity": "HELLO"},
            "seen",
        ]


async def test_handlers_have_parameters_of_the_handshake_and_dependencies():
    """The seed has to pass these through the scope."""
    sessions: list[str] = []

    async def session(user: Annotated[str, Cookie()]) -> AsyncIterator[str]:
        sessions.append("opened")
        yield f"session of {user}"
        sessions.append("closed")

    def trace(x_trace: Annotated[str, Header()]) -> str:  # a plain function: in a thread, as FastAPI does it
        return f"trace {x_trace}"

    router = WebSocketRouter(discriminator="action")

    @router.receive(ChatMessage)
    async def on_chat_message(
        data: ChatMessage,
        item: int,
        limit: Annotated[int, Query()],
        trace: Annotated[str, Depends(trace)],
        session: Annotated[str, Depends(session)],
    ) -> list[Any]:
        assert sessions[-1] == "opened"
        return [data.message, item, limit, trace, session]

    headers = {"X-Trace": "t1", "Cookie": "user=ana"}
    async with running(application(router, prefix="/ws/{item}")) as app:
        async with app.browser("/ws/7?limit=3", headers=headers) as browser:
            expected = ["hello", 7, 3, "trace t1", "session of ana"]
            assert [json.loads(one) for one in await answers(browser, MESSAGE, MESSAGE)] == [expected] * 2
            assert sessions == ["opened", "closed"] * 2


async def test_a_dependency_of_the_router_hands_data_to_its_handlers():
    """The way of the seed, for who wants it: done once for each connection."""

    async def find(item: int, connection: WebSocket) -> None:
        connection.state.item = f"item {item}"

    router = WebSocketRouter(dependencies=[Depends(find)])

    @router.receive(ChatMessage)
    async def on_chat_message(websocket: WebSocket) -> Any:
        return websocket.state.item

    async with running(application(router, prefix="/ws/{item}")) as app, app.browser("/ws/7") as browser:
        assert await answers(browser, MESSAGE) == ['"item 7"']


async def test_routers_are_nested_and_included_as_for_http():
    """The seed has no routes below a router."""

    def saying(what: str) -> WebSocketRouter:
        router = WebSocketRouter("/{room}")

        @router.receive(ChatMessage)
        async def on_chat_message(room: str) -> str:
            return f"{what} {room}"

        return router

    inner = APIRouter(prefix="/inner")
    inner.include_router(saying("deep"), prefix="/deeper")
    outer = WebSocketRouter(prefix="/outer")
    outer.include_router(inner)
    outer.include_router(saying("flat"))
    async with running(application(outer, prefix="/api")) as app:
        for path, expected in (("/api/outer/inner/deeper/a", "deep a"), ("/api/outer/b", "flat b")):
            async with app.browser(path) as browser:
                assert await answers(browser, MESSAGE) == [json.dumps(expected)]


async def test_on_connect_decides_who_comes_in_and_on_disconnect_knows_who_has_gone():
    clients: set[str] = set()
    ends: list[Any] = []
    router = WebSocketRouter()

    @router.on_connect
    async def on_connect(connection: WebSocketConnection, name: str) -> None:
        if name == "mallory":
            raise HTTPException(403)
        clients.add(connection.id)  # accepted when this returns

    @router.on_disconnect
    async def on_disconnect(connection: WebSocketConnection, code: int, reason: str) -> None:
        clients.remove(connection.id)
        ends.append((code, reason))

    async with running(application(router)) as app:
        with pytest.raises(WebSocketClosed) as refused:
            async with app.browser("/ws?name=mallory"):
                pass
        assert refused.value.status == 403
        async with app.browser("/ws?name=ana") as browser:
            assert len(clients) == 1
            await browser.close(1000, "bye")
    assert (clients, ends) == (set(), [(1000, "bye")])


async def test_on_fallback_gets_what_is_none_of_the_models():
    router = WebSocketRouter(discriminator="action")

    @router.receive(ChatMessage)
    async def on_chat_message() -> str:
        return "a message"

    @router.on_fallback
    async def on_fallback(connection: WebSocketConnection, raw: str, error: InvalidMessage) -> list[Any]:
        return [raw, isinstance(error.__cause__, ValidationError)]

    wrong = ("", "{", '{"action": "other"}', '{"action": "message"}')
    async with running(application(router)) as app, app.browser("/ws") as browser:
        told = [json.loads(one) for one in await answers(browser, *wrong)]
        assert [raw for raw, _ in told] == list(wrong)
        assert told[-1][1], "pydantic's own error is there"
        assert await answers(browser, MESSAGE) == ['"a message"'], "no number of them closes the connection"


async def test_without_on_fallback_the_third_of_them_ends_the_connection():
    router = WebSocketRouter(discriminator="action")
    router.receive(ChatMessage)(_nothing)
    async with running(application(router)) as app, app.browser("/ws") as browser:
        for _ in range(3):
            await browser.send_text("{")
        assert (await browser.closed()).code == 4501


async def _nothing() -> None: ...


async def test_a_dispatcher_chooses_by_itself():
    async def left(text: str) -> str:
        return f"left {text}"

    async def dispatcher(connection: WebSocketConnection, handlers: Any, raw: str) -> Any:
        side, _, text = raw.partition("-")
        if side == "LEFT":
            return await left(text)
        return await handlers[ChatMessage](connection, ChatMessage(action="message", message=text))

    router = WebSocketRouter("/{item}", dispatcher=dispatcher)

    @router.receive(ChatMessage)
    async def on_chat_message(data: ChatMessage, item: int) -> str:  # its own parameters, all the same
        return f"right {data.message} {item}"

    async with running(application(router)) as app, app.browser("/ws/7") as browser:
        assert await answers(browser, "LEFT-a", "RIGHT-b") == ['"left a"', '"right b 7"']


async def test_binary_mode():
    router = WebSocketRouter(discriminator="action", binary=True)

    @router.receive(ChatMessage)
    async def on_chat_message(websocket: WebSocket, data: ChatMessage) -> str:
        await websocket.send_bytes(b"got " + data.message.encode())
        return data.message

    async with running(application(router)) as app, app.browser("/ws") as browser:
        await browser.send_bytes(MESSAGE.encode())
        assert [await browser.receive() for _ in range(2)] == [b"got hello", b'"hello"']


class Event1(BaseModel):
    kind: Literal["one"]


class Event2(BaseModel):
    kind: Literal["two"]


class Event3(BaseModel):
    kind: Literal["three"]


async def test_what_is_received_and_sent_is_in_the_openapi_document():
    router = WebSocketRouter(discriminator="kind", sends=[Event1, Event2])

    @router.receive(Event1, sends=[Event2, Event3])
    async def on_event1(websocket: WebSocket) -> Event3:
        await websocket.send_text("whatever: what is documented binds nobody")
        return Event3(kind="three")

    async with running(application(router)) as app:
        document = (await app.http.get("/openapi.json")).json()
        connecting, receiving = document["paths"]["/ws (WebSocket)"]["get"], document["paths"]["/ws: Event1"]["post"]
        assert [name in str(connecting["callbacks"]) for name in ("Event1", "Event2", "Event3")] == [True, True, False]
        assert [name in str(receiving["callbacks"]) for name in ("Event1", "Event2", "Event3")] == [False, True, True]
        assert "Event1" in str(receiving["requestBody"])
        assert "Event3" in str(receiving["responses"])
        async with app.browser("/ws") as browser:
            assert (await answers(browser, '{"kind": "one"}'))[0].startswith("whatever")


class Said(WebSocketMessage):
    MESSAGE_ID = "ws_router.said"

    text: str


async def test_connections_are_managed_and_messages_go_to_rooms():
    """What the seed leaves to its users."""
    router = WebSocketRouter("/{room}")

    @router.on_connect
    async def on_connect(connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)

    @router.receive(Said)
    async def said(message: Said, room: str) -> None:
        await message.send(room)

    async with running(application(router)) as app:
        async with app.browser("/ws/a") as ana, app.browser("/ws/a") as rui, app.browser("/ws/b") as eva:
            await say(ana, Said.MESSAGE_ID, text="hello")
            await say(eva, Said.MESSAGE_ID, text="alone")
            assert await heard(ana, rui) == {"text": "hello"}
            assert await heard(eva) == {"text": "alone"}
