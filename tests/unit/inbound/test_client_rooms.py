from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastapi import HTTPException

from jararaca_ws import (
    AppTransactionContext,
    BackendUnavailable,
    CloseCode,
    ConfigurationError,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    WebSocketSettings,
    recoverable,
    use_ws_manager,
)
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect
from jararaca_ws.wire.room_requests import MalformedRequest, decode_request
from tests.unit.apps import App, running

V1 = ["jararaca.v1"]


class Typing(WebSocketMessage):
    MESSAGE_ID = "test_client_rooms.typing"

    who: str


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_client_rooms.posted"
    DELIVERY = recoverable(size=10)


class Foreign(WebSocketMessage):
    MESSAGE_ID = "test_client_rooms.foreign"


SLOW = "takes for ever to judge"


class ChatRoom(Room[Typing | Posted], pattern="chat-{number}"):
    number: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return await judge(self.number, connection)

    async def authorize_send(self, connection: WebSocketConnection, message: WebSocketMessage) -> bool:
        if isinstance(message, Typing) and message.who == SLOW:
            await asyncio.Event().wait()
        return True


class NewsRoom(Room[Posted], pattern="news-{topic}"):
    topic: str


async def judge(number: int, connection: WebSocketConnection) -> bool:
    if number == 500:
        raise RuntimeError("a secret")
    if number == 503:
        raise BackendUnavailable("it sleeps")
    if number == 499:
        raise asyncio.CancelledError
    if number == 4503:
        await connection.close(CloseCode.DISCONNECTED)
    if number == 1:
        Hangs.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):  # cleaning up takes a while
                await asyncio.sleep(0)
            Hangs.ended.set()
    return number < 100


class Hangs:
    began = asyncio.Event()
    ended = asyncio.Event()


@pytest.fixture(autouse=True)
def _fresh_events() -> None:
    Hangs.began, Hangs.ended = asyncio.Event(), asyncio.Event()


@RestController("/ws")
class Chat:
    @WebSocketEndpoint("/open", client_rooms=[ChatRoom, NewsRoom], client_sends=[Typing, Foreign])
    async def open(self, connection: WebSocketConnection) -> None:
        await connection.join("mine", "news-fixed!")
        async for message in connection:
            await connection.send(message)

    @WebSocketEndpoint("/deaf", client_rooms=[ChatRoom])
    async def deaf(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()

    @WebSocketEndpoint("/stubborn", client_rooms=[ChatRoom])
    async def stubborn(self, connection: WebSocketConnection) -> None:
        await Hangs.ended.wait()

    @WebSocketEndpoint("/closed")
    async def closed(self, connection: WebSocketConnection) -> None:
        async for message in connection:
            await connection.send(message)


async def ask(socket: InLoopWebSocket, kind: str, message: Any, ref: Any = "r") -> Any:
    envelope = {"MESSAGE_ID": f"jararaca.{kind}", "ref": ref, "message": message}
    await socket.send_text(json.dumps(envelope))
    return await socket.receive_json()


async def refused(socket: InLoopWebSocket, kind: str, message: Any) -> str:
    """The code with which it is refused."""
    answer = await ask(socket, kind, message)
    assert (answer["MESSAGE_ID"], answer["ref"]) == ("jararaca.error", "r")
    assert set(answer["message"]) - {"retry_after_ms"} == {"code", "id"}
    return str(answer["message"]["code"])


def in_room(app: App, room: str) -> int:
    return len(app.manager.members(room))


async def test_a_client_joins_gets_what_is_sent_and_leaves():
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        answer = await ask(socket, "join", {"rooms": ["chat-7", "news-x", "chat-7"]})
        nothing = {"epoch": "", "offset": 0}
        assert answer == {
            "MESSAGE_ID": "jararaca.joined",
            "ref": "r",
            "message": {"rooms": [{"room": "chat-7", **nothing}, {"room": "news-x", **nothing}]},
        }
        await app.manager.send([ChatRoom(number=7)], Typing(who="Ana"))
        assert (await socket.receive_json())["message"] == {"who": "Ana"}
        answer = await ask(socket, "leave", {"rooms": ["chat-7"]}, ref="other")
        assert answer == {"MESSAGE_ID": "jararaca.left", "ref": "other", "message": {"rooms": ["chat-7"]}}
        assert (in_room(app, "chat-7"), in_room(app, "news-x"), in_room(app, "mine")) == (0, 1, 1)


async def test_the_answer_says_where_the_room_is():
    async with running(Chat) as app, connect(app.asgi, "/ws/open") as socket:
        await app.manager.send([NewsRoom(topic="x")], Posted())
        (room,) = (await ask(socket, "join", {"rooms": ["news-x"]}))["message"]["rooms"]
        assert room["offset"] == 1
        assert room["epoch"]


async def test_a_client_that_comes_back_and_joins_again_gets_what_it_has_missed():
    async with running(Chat) as app:
        await app.manager.send([NewsRoom(topic="x")], Posted())
        async with connect(app.asgi, "/ws/open") as socket:
            (before,) = (await ask(socket, "join", {"rooms": ["news-x"]}))["message"]["rooms"]
        for _ in range(2):
            await app.manager.send([NewsRoom(topic="x")], Posted())
        async with connect(app.asgi, "/ws/open", subprotocols=[*V1, "jararaca.recover"]) as socket:
            positions = {"news-x": {"epoch": before["epoch"], "offset": before["offset"]}}
            await socket.send_text(json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": positions}}))
            frames = [
                await ask(socket, "join", {"rooms": ["news-x"]}),
                *[await socket.receive_json() for _ in range(3)],
            ]
            by_id = {frame["MESSAGE_ID"]: frame for frame in frames}
            assert by_id["jararaca.recovered"]["message"]["recovered"] is True
            assert by_id["jararaca.joined"]["message"]["rooms"][0]["offset"] == 3
            assert [frame["offset"] for frame in frames if frame["MESSAGE_ID"] == Posted.MESSAGE_ID] == [2, 3]


async def test_a_client_sends_to_a_room_that_it_is_in():
    async with running(Chat) as app:
        async with connect(app.asgi, "/ws/open") as one, connect(app.asgi, "/ws/open") as other:
            for socket in (one, other):
                await ask(socket, "join", {"rooms": ["chat-7"]})
            envelope = {"MESSAGE_ID": Typing.MESSAGE_ID, "message": {"who": "Ana"}}
            await one.send_text(
                json.dumps({"MESSAGE_ID": "jararaca.send", "ref": "s", "message": {"room": "chat-7", **envelope}})
            )
            assert await other.receive_json() == envelope
            frames = [await one.receive_json(), await one.receive_json()]
            assert envelope in frames
            assert {"MESSAGE_ID": "jararaca.sent", "ref": "s", "message": {"room": "chat-7"}} in frames


@pytest.mark.parametrize(
    ("room", "message", "code"),
    [
        ("news-x", Typing(who="Ana"), "permission_denied"),  # carries no such messages
        ("chat-8", Typing(who="Ana"), "permission_denied"),  # it is not in it
        ("mine", Typing(who="Ana"), "permission_denied"),  # it is in it, by the application's will
        ("chat-7", Posted(), "permission_denied"),  # the server's alone
        ("chat-7", Foreign(), "permission_denied"),
        ("x" * 256, Foreign(), "bad_request"),
    ],
)
async def test_a_client_sends_nothing_else(room: str, message: WebSocketMessage, code: str):
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        await ask(socket, "join", {"rooms": ["chat-7", "news-x"]})
        envelope = {"room": room, "MESSAGE_ID": message.MESSAGE_ID, "message": message.model_dump()}
        assert await refused(socket, "send", envelope) == code
        assert app.manager.counters.sent == 0


async def test_what_a_client_sends_is_validated():
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        await ask(socket, "join", {"rooms": ["chat-7"]})
        for identity, code in (("no.such", "unknown_type"), (Typing.MESSAGE_ID, "bad_request")):
            envelope = {"room": "chat-7", "MESSAGE_ID": identity, "message": {}}
            assert await refused(socket, "send", envelope) == code


@pytest.mark.parametrize("name", ["mine", "chat-100", "chat-07", "nobody's", "\x01user:ana", "news-fixed!", ""])
@pytest.mark.parametrize("kind", ["join", "leave"])
async def test_what_clients_have_no_business_with_is_refused_whether_it_is_there_or_not(kind: str, name: str):
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        before = set(app.manager.rooms)
        if (kind, name) != ("leave", "chat-100"):  # leaving takes no permission
            assert await refused(socket, kind, {"rooms": ["chat-7", name]}) == "permission_denied"
        assert set(app.manager.rooms) == before


async def test_by_default_everything_is_refused():
    async with running(Chat) as app, connect(app.asgi, "/ws/closed", subprotocols=V1) as socket:
        for kind in ("join", "leave"):
            assert await refused(socket, kind, {"rooms": ["chat-7"]}) == "permission_denied"
        envelope = {"room": "chat-7", "MESSAGE_ID": Typing.MESSAGE_ID, "message": {"who": "Ana"}}
        assert await refused(socket, "send", envelope) == "permission_denied"
        assert not app.manager.rooms


async def test_without_the_subprotocol_an_endpoint_that_allows_nothing_is_left_alone():
    async with running(Chat) as app, connect(app.asgi, "/ws/closed") as socket:
        for _ in range(3):
            await socket.send_text('{"MESSAGE_ID":"jararaca.join","ref":"r","message":{"rooms":["chat-7"]}}')
        assert (await socket.closed()).code == CloseCode.BAD_REQUEST


async def test_a_client_without_the_subprotocol_is_told_what_it_asked_for_and_nothing_else():
    async with running(Chat) as app, connect(app.asgi, "/ws/open") as socket:
        await socket.send_text('{"MESSAGE_ID":"jararaca.join","message":{"rooms":["chat-100"]}}')
        await socket.send_text('{"MESSAGE_ID":"jararaca.join","message":{"rooms":["chat-7"]}}')
        answer = await ask(socket, "join", {"rooms": ["chat-8"]})
        assert answer["message"]["rooms"][0]["room"] == "chat-8"
        assert in_room(app, "chat-7") == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [(500, "internal_error"), (499, "internal_error"), (503, "unavailable"), (100, "permission_denied")],
)
async def test_a_judge_that_fails_lets_nobody_in_and_the_next_request_is_handled(
    number: int, code: str, caplog: pytest.LogCaptureFixture
):
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        assert await refused(socket, "join", {"rooms": ["chat-7", f"chat-{number}"]}) == code
        assert (in_room(app, "chat-7"), in_room(app, f"chat-{number}")) == (0, 0)
        await ask(socket, "join", {"rooms": ["chat-7"]})
        assert in_room(app, "chat-7") == 1
    assert ": a message was " in caplog.text


@pytest.mark.parametrize(
    "message", [{}, {"rooms": []}, {"rooms": "chat-7"}, {"rooms": [7]}, {"rooms": [f"chat-{n}" for n in range(129)]}]
)
async def test_what_is_malformed_is_said_to_be(message: Any):
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        assert await refused(socket, "join", message) == "bad_request"


@pytest.mark.parametrize("ref", [7, "x" * 129, None, []])
def test_a_ref_is_a_short_string_or_none(ref: Any):
    raw = json.dumps({"MESSAGE_ID": "jararaca.join", "ref": ref, "message": {"rooms": ["a"]}})
    request = decode_request(raw)
    assert request is not None
    assert request.ref is None
    assert isinstance(request, MalformedRequest) == (ref is not None)


async def test_b29_a_flood_of_requests_is_refused_and_then_closed_with_4013():
    async with running(Chat) as app, connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
        text = json.dumps({"MESSAGE_ID": "jararaca.join", "message": {"rooms": ["chat-7"]}})
        for _ in range(1000):
            await socket.send_text(text)
        codes = []
        while True:
            try:
                answer = await socket.receive_json()
            except WebSocketClosed as end:
                closed = end
                break
            if answer["MESSAGE_ID"] == "jararaca.error":
                codes.append(answer["message"]["code"])
        assert closed.code == 4013
        assert codes == ["rate_limited"] * app.manager.settings.max_rate_limited


async def test_b22_a_client_is_in_so_many_rooms_at_most():
    interceptor = WebSocketInterceptor(settings=WebSocketSettings(max_rooms=4))  # two are the application's
    async with running(Chat, interceptor=interceptor) as app:
        async with connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
            assert await refused(socket, "join", {"rooms": ["chat-7", "chat-8", "chat-9"]}) == "room_limit"
            await ask(socket, "join", {"rooms": ["chat-7", "chat-8"]})
            assert await refused(socket, "join", {"rooms": ["chat-9"]}) == "room_limit"
            assert (await ask(socket, "join", {"rooms": ["chat-7"]}))["MESSAGE_ID"] == "jararaca.joined"
            await ask(socket, "leave", {"rooms": ["chat-7"]})
            assert (await ask(socket, "join", {"rooms": ["chat-9"]}))["MESSAGE_ID"] == "jararaca.joined"


async def test_an_endpoint_that_does_not_read_lets_clients_join_all_the_same():
    async with running(Chat) as app, connect(app.asgi, "/ws/deaf") as socket:
        await ask(socket, "join", {"rooms": ["chat-7"]})
        assert in_room(app, "chat-7") == 1


async def test_the_application_s_own_messages_go_to_the_endpoint():
    async with running(Chat) as app, connect(app.asgi, "/ws/open") as socket:
        envelope = {"MESSAGE_ID": Typing.MESSAGE_ID, "message": {"who": '"jararaca.join"'}}
        await socket.send_text(json.dumps(envelope))
        assert await socket.receive_json() == envelope


# --- units of work, and ends ------------------------------------------------------------------------------------------


class Counting:
    """An interceptor that counts what it is around, and lets nobody in when it is told so."""

    def __init__(self) -> None:
        self.seen = 0
        self.open = 0
        self.refuses = False

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        assert app_context.transaction_data.context_type == "websocket"
        self.seen += 1
        if self.refuses:
            raise HTTPException(429)
        self.open += 1
        try:
            assert use_ws_manager()
            yield
        finally:
            self.open -= 1


async def test_each_request_is_a_unit_of_work_of_its_own():
    counting = Counting()
    async with running(Chat, others=[counting]) as app:
        async with connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
            await ask(socket, "join", {"rooms": ["chat-7", "chat-8"]})
            seen, held = counting.seen, counting.open
            await ask(socket, "join", {"rooms": ["chat-9"]})
            assert (counting.seen, counting.open) == (seen + 1, held)
            counting.refuses = True
            assert await refused(socket, "join", {"rooms": ["chat-10"]}) == "permission_denied"
            assert in_room(app, "chat-10") == 0


def tasks_of_requests() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("room-requests-")]


async def test_a_judge_that_hangs_delays_nothing_but_requests_and_ends_with_its_client():
    async with running(Chat) as app:
        async with connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
            join = '{"MESSAGE_ID":"jararaca.join","ref":"%s","message":{"rooms":["chat-1"]}}'
            await socket.send_text(join % "first")
            await asyncio.wait_for(Hangs.began.wait(), 5)
            for number in range(17):  # sixteen wait
                await socket.send_text(join % number)
            answer = await socket.receive_json()
            assert (answer["ref"], answer["message"]["code"]) == ("16", "rate_limited")
            await socket.send_text(json.dumps({"MESSAGE_ID": Foreign.MESSAGE_ID, "message": {}}))
            assert (await socket.receive_json())["MESSAGE_ID"] == Foreign.MESSAGE_ID
        assert Hangs.ended.is_set()
        assert not tasks_of_requests()
        assert not app.manager.rooms


async def test_a_judge_that_hangs_does_not_wait_for_an_endpoint_that_goes_on():
    async with running(Chat) as app:
        async with connect(app.asgi, "/ws/stubborn") as socket:
            await socket.send_text('{"MESSAGE_ID":"jararaca.join","ref":"r","message":{"rooms":["chat-1"]}}')
            await asyncio.wait_for(Hangs.began.wait(), 5)
            await socket.close()
            await asyncio.wait_for(Hangs.ended.wait(), 5)


async def test_a_judge_that_takes_too_long_is_cancelled_and_the_next_request_is_handled():
    interceptor = WebSocketInterceptor(settings=WebSocketSettings(handler_timeout=timedelta(seconds=0.02)))
    async with running(Chat, interceptor=interceptor) as app:
        async with connect(app.asgi, "/ws/open", subprotocols=V1) as socket:
            assert await refused(socket, "join", {"rooms": ["chat-1"]}) == "timeout"
            assert Hangs.ended.is_set()
            assert in_room(app, "chat-1") == 0
            assert (await ask(socket, "join", {"rooms": ["chat-2"]}))["MESSAGE_ID"] == "jararaca.joined"
            envelope = {"MESSAGE_ID": Typing.MESSAGE_ID, "message": {"who": SLOW}}
            assert await refused(socket, "send", {"room": "chat-2", **envelope}) == "timeout"


async def test_a_judge_that_closes_the_connection_leaves_nothing_behind():
    async with running(Chat) as app:
        async with connect(app.asgi, "/ws/open") as socket:
            await socket.send_text('{"MESSAGE_ID":"jararaca.join","ref":"r","message":{"rooms":["chat-4503"]}}')
            assert (await socket.closed()).code == CloseCode.DISCONNECTED
        assert not tasks_of_requests()
        assert not app.manager.rooms


async def test_nothing_is_left_when_there_is_nothing_to_do():
    async with running(Chat) as app, connect(app.asgi, "/ws/open") as socket:
        await ask(socket, "join", {"rooms": ["chat-7"]})
        await asyncio.sleep(0)
        assert not tasks_of_requests()


# --- what an endpoint may not say -------------------------------------------------------------------------------------


class Abstract(WebSocketMessage): ...


@pytest.mark.parametrize(
    "options",
    [
        {"client_rooms": ["chat"]},
        {"client_rooms": [Room]},
        {"client_rooms": [ChatRoom(number=7)]},
        {"client_rooms": [ChatRoom], "client_sends": [Abstract]},
        {"client_rooms": [ChatRoom], "client_sends": ["typing"]},
        {"client_sends": [Typing]},
    ],
)
def test_what_is_no_room_and_no_message_is_refused_at_once(options: Any):
    with pytest.raises(ConfigurationError, match="client_"):
        WebSocketEndpoint("/ws", **options)


async def test_a_router_lets_its_clients_do_as_much_from_their_first_frame_on():
    router = WebSocketRouter("/router", client_rooms=[ChatRoom], client_sends=[Typing])

    @router.receive(Posted)
    async def posted() -> str:
        return "handled"

    async with running() as app:
        app.asgi.include_router(router)
        async with connect(app.asgi, "/router") as one, connect(app.asgi, "/router", subprotocols=V1) as other:
            for socket in (one, other):  # at once: what is sent with the handshake is not taken for a message
                assert (await ask(socket, "join", {"rooms": ["chat-7"]}))["MESSAGE_ID"] == "jararaca.joined"
            typing = {"MESSAGE_ID": Typing.MESSAGE_ID, "message": {"who": "me"}}
            await ask(one, "send", {"room": "chat-7", **typing})
            assert (await other.receive_json())["message"] == {"who": "me"}
            await one.receive_json()
            await one.send_text(json.dumps({"MESSAGE_ID": Posted.MESSAGE_ID, "message": {}, "ref": "2"}))
            assert (await one.receive_json())["message"] == "handled"
            assert await refused(other, "join", {"rooms": ["other-1"]}) == "permission_denied"


def test_a_router_refuses_what_are_no_rooms_and_messages():
    with pytest.raises(ConfigurationError, match="client_rooms"):
        WebSocketRouter(client_rooms=[Typing])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="without client_rooms"):
        WebSocketRouter(client_sends=[Typing])
