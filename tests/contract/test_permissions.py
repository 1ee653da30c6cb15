"""Losing a permission, across the cluster: what is sent afterwards does not come."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from jararaca_ws import (
    PresentedToken,
    Room,
    User,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect
from tests.unit.apps import App, running
from tests.unit.clusters import MakeBackend

Started = Callable[[], AbstractAsyncContextManager[tuple[App, App]]]

ALLOWED: set[tuple[str, int]] = set()
"""Stands for the application's database: which user may be in which room."""


class Note(WebSocketMessage):
    MESSAGE_ID = "test_permissions.note"

    text: str


class Secret(Room[Note], pattern="secret-{number}"):
    number: int

    async def authorize(self, connection: WebSocketConnection) -> bool:
        await asyncio.sleep(0)
        return (str(connection.user_id), self.number) in ALLOWED


async def known(token: PresentedToken) -> User:
    return User(id=token.value)


class Controller:
    @WebSocketEndpoint("/ws", authenticate=known, client_rooms=[Secret])
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()


@pytest.fixture
def two(make_on_redis: MakeBackend) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[tuple[App, App]]:
        ALLOWED.clear()
        ALLOWED.update({("ana", 1), ("ana", 2), ("rui", 1)})
        first, second = (WebSocketInterceptor(make_on_redis()) for _ in range(2))
        async with running(Controller, interceptor=first) as one, running(Controller, interceptor=second) as other:
            yield one, other

    return started


def socket_of(app: App, user: str) -> AbstractAsyncContextManager[InLoopWebSocket]:
    return connect(app.asgi, "/ws", subprotocols=["jararaca.v1"], headers={"Authorization": f"Bearer {user}"})


async def join(socket: InLoopWebSocket, *rooms: str) -> Any:
    await socket.send_text(json.dumps({"MESSAGE_ID": "jararaca.join", "message": {"rooms": list(rooms)}}))
    return await socket.receive_json()


async def up_to(socket: InLoopWebSocket, text: str) -> list[Any]:
    """What comes before this note."""
    came: list[Any] = []
    while (frame := await socket.receive_json())["message"].get("text") != text:
        came.append(frame)
    return came


async def flood(app: App, text: str, count: int) -> None:
    for _ in range(count):
        await app.manager.send(["secret-1"], Note(text=text))


async def test_b28_after_a_room_was_withdrawn_nothing_of_it_comes(two: Started):
    async with two() as (one, other), socket_of(other, "ana") as ana, socket_of(other, "rui") as rui:
        assert (await join(ana, "secret-1", "secret-2"))["MESSAGE_ID"] == "jararaca.joined"
        assert (await join(rui, "secret-1"))["MESSAGE_ID"] == "jararaca.joined"
        before = asyncio.gather(*(flood(app, "before", 100) for app in (one, other)))
        await asyncio.sleep(0)
        ALLOWED.discard(("ana", 1))
        await one.manager.leave_user("ana", [Secret(number=1)])
        # It is acknowledged: from here on nothing may reach her.
        await asyncio.gather(*(flood(app, "after", 100) for app in (one, other)))
        await before
        await one.manager.send([Secret(number=2)], Note(text="end"))
        came = await up_to(ana, "end")
        assert {"MESSAGE_ID": "jararaca.left", "message": {"rooms": ["secret-1"]}} in came
        assert [frame for frame in came if frame["message"].get("text") == "after"] == []
        assert (await join(ana, "secret-1"))["message"]["code"] == "permission_denied"
        await one.manager.send(["secret-1"], Note(text="end"))
        assert len([frame for frame in await up_to(rui, "end") if frame["message"]["text"] == "after"]) == 200


async def test_b28_rooms_are_asked_again_when_the_application_says_so(two: Started):
    async with two() as (one, other), socket_of(other, "ana") as ana, socket_of(one, "ana") as here:
        for socket in (ana, here):
            await join(socket, "secret-1", "secret-2")
        ALLOWED.discard(("ana", 2))
        await one.manager.reauthorize_user("ana")
        for socket in (ana, here):
            left = await socket.receive_json()
            assert left == {"MESSAGE_ID": "jararaca.left", "message": {"rooms": ["secret-2"]}}
        # It is acknowledged to the client: from here on nothing may reach it.
        await one.manager.send(["secret-2"], Note(text="after"))
        await one.manager.send(["secret-1"], Note(text="still"))
        assert await up_to(ana, "still") == []
        assert [connection.rooms for connection in other.manager.connections] == [("secret-1",)]


async def test_b28_a_permission_that_goes_while_a_join_is_under_way(two: Started, monkeypatch: pytest.MonkeyPatch):
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(self: Secret, connection: WebSocketConnection) -> bool:
        allowed = (str(connection.user_id), self.number) in ALLOWED
        asked.set()
        await goes_on.wait()
        return allowed

    async with two() as (one, other), socket_of(other, "ana") as ana:
        await join(ana, "secret-2")
        monkeypatch.setattr(Secret, "authorize", slowly)
        joining = asyncio.create_task(join(ana, "secret-1"))
        await asked.wait()
        ALLOWED.discard(("ana", 1))
        await one.manager.leave_user("ana", ["secret-1"])
        [connection] = other.manager.connections
        async with asyncio.timeout(5):
            while not connection.permission_changes:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.001)
        goes_on.set()
        assert (await joining)["message"]["code"] == "permission_denied"
        assert connection.rooms == ("secret-2",)


async def test_b38_who_lost_a_room_recovers_nothing_of_it(two: Started):
    async with two() as (one, other):
        ALLOWED.discard(("ana", 1))
        offered = ["jararaca.v1", "jararaca.recover"]
        headers = {"Authorization": "Bearer ana"}
        async with connect(other.asgi, "/ws", subprotocols=offered, headers=headers) as ana:
            rooms = {"secret-1": {"epoch": "", "offset": 0}}
            await ana.send_text(json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": rooms}}))
            assert (await join(ana, "secret-1"))["message"]["code"] == "permission_denied"
            await one.manager.send(["secret-1"], Note(text="live"))
            await one.manager.send_to_user("ana", Note(text="end"))
            assert await up_to(ana, "end") == []


async def test_b28_who_is_disconnected_gets_nothing_more(two: Started):
    async with two() as (one, other), socket_of(other, "ana") as ana:
        await join(ana, "secret-1")
        await one.manager.revoke(user_id="ana")
        await flood(one, "after", 50)
        with pytest.raises(WebSocketClosed) as closed:
            await up_to(ana, "after")
        assert closed.value.code == 4500
