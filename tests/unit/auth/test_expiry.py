from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import Header

from jararaca_ws import User, WebSocketConnection, WebSocketEndpoint, WebSocketInterceptor, WebSocketSettings
from jararaca_ws.auth.expiry import Expiries
from jararaca_ws.auth.user import PresentedToken
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect
from tests.unit.apps import App, running
from tests.unit.played import until


class Wall:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self.now + seconds, UTC)


async def life(token: PresentedToken) -> User:
    """The token says who it is and until when."""
    who, until_s = token.value.split(":")
    return User(id=who, expires_at=datetime.fromtimestamp(float(until_s), UTC))


@asynccontextmanager
async def clocked() -> AsyncIterator[tuple[App, Wall]]:
    class Controller:
        @WebSocketEndpoint("/ws", authenticate=life)
        async def serve(self, connection: WebSocketConnection) -> None:
            async for _ in connection:
                pass

    interceptor = WebSocketInterceptor(settings=WebSocketSettings(expiry_warning=timedelta(seconds=25)))
    async with running(Controller, interceptor=interceptor) as app:
        wall = Wall()
        app.manager.tokens.expiries = Expiries(25.0, wall)
        yield app, wall


def bearer(wall: Wall, seconds: float, who: str = "ana") -> dict[str, str]:
    return {"Authorization": f"Bearer {who}:{wall.now + seconds}"}


async def renew(socket: InLoopWebSocket, wall: Wall, seconds: float, who: str = "ana", **more: Any) -> None:
    message = {"token": f"{who}:{wall.now + seconds}"}
    await socket.send_text(json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": message, **more}))


async def test_b28_a_client_is_warned_and_closed_with_4005_when_its_token_expires():
    async with (
        clocked() as (app, wall),
        connect(app.asgi, "/ws", subprotocols=["jararaca.v1"], headers=bearer(wall, 60)) as socket,
    ):
        wall.now += 40
        warned = await socket.receive_json()
        assert warned == {"MESSAGE_ID": "jararaca.expiring", "message": {"expires_in_ms": 20_000}}
        wall.now += 20
        end = await socket.closed()
        assert (end.code, end.reason) == (4005, "token expired")
        assert len(app.manager.tokens.expiries) == 0


async def test_b28_another_token_of_the_same_user_keeps_it_open():
    async with (
        clocked() as (app, wall),
        connect(app.asgi, "/ws", subprotocols=["jararaca.v1"], headers=bearer(wall, 60)) as socket,
    ):
        wall.now += 40
        assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.expiring"
        await renew(socket, wall, 600, ref="r")
        assert await socket.receive_json() == {
            "MESSAGE_ID": "jararaca.authenticated",
            "message": {"user_id": "ana", "expires_in_ms": 600_000},
            "ref": "r",
        }
        wall.now += 580
        assert (await socket.receive_json())["message"]["expires_in_ms"] == 20_000
        [connection] = app.manager.connections
        assert connection.alive


@pytest.mark.parametrize(("who", "seconds", "code"), [("rui", 600, 4500), ("ana", -1, 4005)])
async def test_b28_a_new_token_that_does_not_count_ends_it(who: str, seconds: float, code: int):
    async with (
        clocked() as (app, wall),
        connect(app.asgi, "/ws", subprotocols=["jararaca.v1"], headers=bearer(wall, 60)) as socket,
    ):
        await renew(socket, wall, seconds, who)
        told = await socket.receive_json()
        assert told["MESSAGE_ID"] == "jararaca.error"
        assert told["message"]["code"] == ("authentication_failed" if code == 4500 else "token_expired")
        assert (await socket.closed()).code == code


async def test_who_understands_no_control_messages_is_closed_unwarned():
    async with clocked() as (app, wall), connect(app.asgi, "/ws", headers=bearer(wall, 26)) as socket:
        wall.now += 10
        wall.now += 20
        assert (await socket.closed()).code == 4005


@pytest.mark.parametrize("jump_s", [3600, -3600])
async def test_f43_a_clock_that_jumps_is_believed(jump_s: int):
    async with clocked() as (app, wall), connect(app.asgi, "/ws", headers=bearer(wall, 1800)) as socket:
        wall.now += jump_s
        if jump_s > 0:
            assert (await socket.closed()).code == 4005
        else:
            wall.now += 1799 + 3600
            await asyncio.sleep(1.2)  # longer than the clock is left unread
            [connection] = app.manager.connections
            assert connection.alive
            wall.now += 2
            assert (await socket.closed()).code == 4005


async def test_an_expired_token_opens_nothing():
    async with clocked() as (app, wall):
        with pytest.raises(WebSocketClosed) as refused:
            async with connect(app.asgi, "/ws", headers=bearer(wall, 0)):
                pass
        assert refused.value.status == 401
        assert not app.manager.connections


async def test_who_goes_is_forgotten_at_once_and_one_timer_does_for_all():
    async with clocked() as (app, wall):
        expiries = app.manager.tokens.expiries
        async with (
            connect(app.asgi, "/ws", headers=bearer(wall, 60)),
            connect(app.asgi, "/ws", headers=bearer(wall, 90)),
        ):
            assert len(expiries) == 2
        await until(lambda: len(expiries) == 0)
        wall.now += 1000
        await until(lambda: expiries._timer is None)
        assert not expiries._due
        assert not expiries._moments


async def test_a_token_without_an_end_is_not_looked_after():
    async def forever(token: PresentedToken) -> User:
        return User(id="ana")

    class Controller:
        @WebSocketEndpoint("/ws", authenticate=forever)
        async def serve(self, connection: WebSocketConnection, x: Annotated[str, Header()] = "") -> None:
            await connection.closed.wait()

    async with running(Controller) as app, connect(app.asgi, "/ws", headers={"Authorization": "Bearer x"}):
        assert len(app.manager.tokens.expiries) == 0
