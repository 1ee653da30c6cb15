# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from jararaca_ws import (
    BackendUnavailable,
    PresenceSettings,
    PresentedToken,
    Receive,
    Room,
    User,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    WebSocketSettings,
    provide_ws_manager,
    use_ws_manager,
)
from jararaca_ws.errors import ConfigurationError, PermissionDenied
from jararaca_ws.testing import InLoopWebSocket, connect, lifespan
from tests.unit.apps import App, running
from tests.unit.played import turns, until

HEADERS = {"Authorization": "Bearer ana"}
V1 = ["jararaca.v1"]


class Note(WebSocketMessage):
    MESSAGE_ID = "test_reauthorizing.note"

    text: str = ""


class Judge:
    """Decides about the rooms, as a test has it."""

    def __init__(self) -> None:
        self.verdicts: dict[str, bool | Exception] = {}
        self.asked: list[str] = []
        self.units_of_work = 0
        self.in_unit_of_work = 0

    async def decide(self, name: str) -> bool:
        self.asked.append(name)
        assert use_ws_manager() is not None
        verdict = self.verdicts.get(name, True)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    @asynccontextmanager
    async def intercept(self, app_context: Any) -> AsyncIterator[None]:
        self.units_of_work += 1
        self.in_unit_of_work += 1
        yield
        self.in_unit_of_work -= 1


judge = Judge()


@pytest.fixture(autouse=True)
def anew() -> None:
    judge.__init__()  # type: ignore[misc]


class Asked(Room[Note], pattern="asked-{name}"):
    name: str

    async def authorize(self, connection: WebSocketConnection) -> bool:
        return await judge.decide(self.name)

    async def authorize_send(self, connection: WebSocketConnection, message: Note) -> bool:
        return message.text != "forbidden"


class Open(Room[Note], pattern="open"):
    pass


async def known(token: PresentedToken) -> User:
    return User(id=token.value.partition(":")[0])


class Controller:
    @WebSocketEndpoint("/ws", authenticate=known, client_rooms=[Asked, Open], client_sends=[Note])
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.join(Asked(name="a"), Asked(name="b"), "asked-c", Open())
        await connection.send(Note(text="ready"))
        await connection.closed.wait()


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[App, WebSocketConnection, InLoopWebSocket]]:
    async with running(Controller, others=[judge], **options) as app:
        async with connect(app.asgi, "/ws", subprotocols=V1, headers=HEADERS) as socket:
            assert (await socket.receive_json())["message"] == {"text": "ready"}
            [connection] = app.manager.connections
            judge.asked.clear()
            yield app, connection, socket


async def renew(socket: InLoopWebSocket) -> None:
    await socket.send_text('{"MESSAGE_ID":"jararaca.authenticate","message":{"token":"ana:2"}}')
    assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.authenticated"


async def test_b28_another_token_has_typed_rooms_asked_again_and_nothing_else():
    async with opened() as (_app, connection, socket):
        judge.verdicts["b"] = False
        await renew(socket)
        left = await socket.receive_json()
        assert left == {"MESSAGE_ID": "jararaca.left", "message": {"rooms": ["asked-b"]}}
        assert sorted(connection.rooms) == ["asked-a", "asked-c", "open"]
        assert sorted(judge.asked) == ["a", "b"]


async def test_they_are_asked_in_a_unit_of_work():
    async with opened() as (app, _connection, _socket):
        before = judge.units_of_work
        await app.manager.reauthorize_user("ana")
        await until(lambda: len(judge.asked) == 2)
        await until(lambda: judge.units_of_work == before + 1)


@pytest.mark.parametrize("error", [PermissionDenied("b"), RuntimeError("no database"), BackendUnavailable("away")])
async def test_a_room_that_raises_is_left(error: Exception):
    async with opened() as (app, connection, socket):
        judge.verdicts["b"] = error
        await app.manager.reauthorize_user("ana")
        assert (await socket.receive_json())["message"] == {"rooms": ["asked-b"]}
        assert "asked-a" in connection.rooms


async def test_a_room_that_does_not_answer_is_left_and_delays_nobody(monkeypatch: pytest.MonkeyPatch):
    settings = WebSocketSettings(auth_timeout=timedelta(milliseconds=50))
    async with opened(interceptor=WebSocketInterceptor(settings=settings)) as (app, _connection, socket):

        async def hangs(name: str) -> bool:
            await asyncio.Event().wait()
            return True

        monkeypatch.setattr(judge, "decide", hangs)
        await app.manager.reauthorize_user("ana")
        assert sorted((await socket.receive_json())["message"]["rooms"]) == ["asked-a", "asked-b"]


async def test_after_a_lost_link_a_room_that_cannot_be_asked_is_kept_and_one_that_refuses_is_left():
    async with opened() as (app, connection, socket):
        judge.verdicts.update(a=RuntimeError("no database"), b=False)
        app.manager._report_gap(["asked-a"], broadcasts=False)
        assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.gap"
        assert (await socket.receive_json())["message"] == {"rooms": ["asked-b"]}
        assert "asked-a" in connection.rooms


async def test_a_room_that_was_left_is_not_asked_any_more():
    async with opened() as (app, connection, socket):
        await connection.leave("asked-a")
        assert connection.granted is not None
        assert list(connection.granted) == ["asked-b"]
        await app.manager.leave_user("ana", ["asked-b", "nowhere"])
        assert (await socket.receive_json())["message"] == {"rooms": ["asked-b"]}
        await app.manager.reauthorize_user("ana")
        await turns()
        assert judge.asked == []


async def test_who_may_not_be_in_a_room_may_not_see_who_is():
    async with opened(interceptor=WebSocketInterceptor(presence=PresenceSettings())) as (app, connection, socket):
        judge.verdicts["x"] = False
        with provide_ws_manager(app.manager):
            with pytest.raises(PermissionDenied):
                await connection.watch_presence(Asked(name="x"))
            judge.verdicts["x"] = True
            await connection.watch_presence(Asked(name="x"))
        assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.presence"
        judge.verdicts["x"] = False
        watchers = app.manager.delivery.rooms.members("\x01presence:asked-x")
        assert connection in watchers
        await app.manager.reauthorize_user("ana")
        await until(lambda: connection not in app.manager.delivery.rooms.members("\x01presence:asked-x"))


async def test_a_room_decides_about_each_message_that_a_client_sends_to_it():
    async with opened() as (_app, _connection, socket):

        async def send(text: str) -> Any:
            message = {"room": "asked-a", "MESSAGE_ID": Note.MESSAGE_ID, "message": {"text": text}}
            await socket.send_text(json.dumps({"MESSAGE_ID": "jararaca.send", "message": message}))
            return await socket.receive_json()

        assert (await send("forbidden"))["message"]["code"] == "permission_denied"
        assert await send("hello") == {"MESSAGE_ID": Note.MESSAGE_ID, "message": {"text": "hello"}}


async def by_admin(connection: WebSocketConnection, message: Note) -> bool:
    return connection.user is not None and connection.user.id == "admin" and message.text != "no"


async def test_b21_a_type_of_message_is_for_those_who_may_send_it():
    handled: list[str] = []

    class Guarded:
        @WebSocketEndpoint("/ws", authenticate=known)
        async def serve(self, connection: WebSocketConnection) -> None: ...

        @Receive(Note, authorize=by_admin)
        async def note(self, message: Note) -> None:
            handled.append(message.text)

    router = WebSocketRouter("/ws", authenticate=known)

    @router.receive(Note, authorize=by_admin)
    async def note(message: Note) -> None:
        handled.append(message.text)

    plain = FastAPI()
    WebSocketInterceptor().install(plain)
    plain.include_router(router)
    async with running(Guarded) as app, lifespan(plain):
        for asgi in (app.asgi, plain):
            for user, text, refused in (("ana", "x", True), ("admin", "no", True), ("admin", "yes", False)):
                async with connect(asgi, "/ws", headers={"Authorization": f"Bearer {user}"}) as socket:
                    envelope = {"MESSAGE_ID": Note.MESSAGE_ID, "message": {"text": text}, "ref": "1"}
                    await socket.send_text(json.dumps(envelope))
                    answer = await socket.receive_json()
                    assert (answer["message"] or {}).get("code") == ("permission_denied" if refused else None)
    assert handled == ["yes", "yes"]


def test_who_answers_at_once_is_refused_at_the_start():
    with pytest.raises(ConfigurationError, match="async def"):
        Receive(Note, authorize=lambda connection, message: True)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigurationError, match="async def"):
        WebSocketRouter().receive(Note, authorize=lambda connection, message: True)  # type: ignore[arg-type,return-value]
