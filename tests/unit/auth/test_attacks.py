# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
"""What a hostile client, or a careless application, may try with tokens, revocations and limits."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket

from jararaca_ws import (
    MemoryWebSocketConnectionBackend,
    MessageToken,
    PresentedToken,
    Rate,
    RateLimitInterceptor,
    Room,
    User,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketSettings,
    connection_by,
    current_connection,
    use_ws_manager,
)
from jararaca_ws.auth import door
from jararaca_ws.errors import AuthenticationFailed
from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from tests.unit.apps import application, running
from tests.unit.limits.test_admission import HeldUp
from tests.unit.played import errors_in, turns, until

ANA = {"Authorization": "Bearer ana"}
V1 = ["jararaca.v1"]


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_attacks.posted"

    text: str = ""


class Square(Room[Posted], pattern="square-{number}"):
    number: int


async def known(token: PresentedToken) -> User:
    return User(id=token.value, token_id=f"token of {token.value}", issued_at=datetime.now(UTC))


class Waiting:
    @WebSocketEndpoint("/ws", authenticate=known)
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()


async def ended(app: Any, **options: Any) -> WebSocketClosed:
    """How a connection ends, refused or accepted."""
    try:
        async with connect(app, "/ws", **options) as socket:
            return await socket.closed()
    except WebSocketClosed as refused:
        return refused


class TestRevoked:
    async def test_b28_while_the_limit_is_asked(self):
        backend, settings = HeldUp(), WebSocketSettings(max_connections_per_user=5)
        async with running(Waiting, interceptor=WebSocketInterceptor(backend, settings=settings)) as app:
            await until(lambda: backend.store.calls)
            backend.store.going.clear()
            coming = asyncio.create_task(ended(app.asgi, headers=ANA))
            await until(lambda: app.manager.connections)
            await app.manager.revoke(user_id="ana")
            backend.store.going.set()
            async with asyncio.timeout(5):
                assert (await coming).code == 4500

    async def test_b28_who_is_called_another_user_since(self):
        class Controller:
            @WebSocketEndpoint("/ws", authenticate=known)
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.identify("account-7")
                await connection.send(Posted())
                await connection.closed.wait()

        async with running(Controller) as app, connect(app.asgi, "/ws", headers=ANA) as socket:
            await socket.receive()
            await app.manager.revoke(user_id="ana")
            assert (await socket.closed()).code == 4500

    @pytest.mark.parametrize("what", [{"user_id": "ana"}, {"token_id": "token of ana"}])
    async def test_b28_who_was_let_go_by_the_manager_and_still_sends(self, what: dict[str, str]):
        async with running(Waiting) as app, connect(app.asgi, "/ws", headers=ANA) as socket:
            await until(lambda: app.manager.connections)
            [connection] = app.manager.connections
            await app.manager.remove_websocket(connection)
            await app.manager.revoke(**what)
            assert (await socket.closed()).code == 4500
            await until(lambda: not app.manager.tokens.revocations._shown)

    async def test_b28_who_was_let_go_is_looked_at_again_after_a_lost_link(self):
        async with running(Waiting) as app, connect(app.asgi, "/ws", headers=ANA) as socket:
            await until(lambda: app.manager.connections)
            [connection] = app.manager.connections
            await app.manager.remove_websocket(connection)
            await app.manager.tokens.revocations.add("ana", None, timedelta(hours=1))  # and nobody was told
            app.manager._report_gap([], broadcasts=True)
            assert (await socket.closed()).code == 4500

    async def test_b28_a_later_revocation_for_a_shorter_time_forgets_nothing(self):
        async with running(Waiting) as app:
            assert isinstance(app.manager.backend, MemoryWebSocketConnectionBackend)
            clock = app.manager.backend._values._clock = Clock()
            ana = User(id="ana", token_id="t", issued_at=datetime.now(UTC))
            for revoked in ({"user_id": "ana"}, {"token_id": "t"}):
                await app.manager.revoke(**revoked, lifetime=timedelta(days=1))
                await app.manager.revoke(**revoked, lifetime=timedelta(seconds=1))
            clock.now += 10.0
            assert await app.manager.tokens.revocations.are_revoked([ana]) == [True]

    async def test_b28_by_an_instance_whose_clock_is_behind(self):
        async with running(Waiting) as app:
            revocations, now = app.manager.tokens.revocations, datetime.now(UTC).timestamp()
            ahead = await revocations.add("ana", None, timedelta(hours=1))
            revocations.obey(ahead, ())
            revocations.obey(ahead.model_copy(update={"at": now - 60}), ())
            with pytest.raises(AuthenticationFailed):
                revocations.check_recent(User(id="ana", issued_at=datetime.fromtimestamp(now - 30, UTC)))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestRenewals:
    async def test_who_sends_tokens_without_end_is_looked_at_once_in_a_while(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(door, "_RENEWAL_INTERVAL_S", 3600.0)
        asked = []

        async def counted(token: PresentedToken) -> User:
            asked.append(token)
            return await known(token)

        class Controller:
            @WebSocketEndpoint("/ws", authenticate=counted)
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.closed.wait()

        async with running(Controller) as app, connect(app.asgi, "/ws", headers=ANA) as socket:
            for _ in range(100):
                await socket.send_text('{"MESSAGE_ID": "jararaca.authenticate", "message": {"token": "ana"}}')
            await until(lambda: len(asked) == 2)
            await turns(50)
            assert len(asked) == 2  # the handshake's, and the first
            [connection] = app.manager.connections
            connection.finish(1006, "")

    async def test_a_token_that_comes_when_all_is_over_is_not_remembered(self):
        going = asyncio.Event()

        async def slowly(token: PresentedToken) -> User:
            if token.source == "message":
                going.set()
                await asyncio.Event().wait() if token.value == "never" else await asyncio.sleep(0)
            return await known(token)

        class Controller:
            @WebSocketEndpoint("/ws", authenticate=slowly)
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.closed.wait()

        async with running(Controller) as app, connect(app.asgi, "/ws", headers=ANA) as socket:
            await until(lambda: app.manager.connections)
            [connection] = app.manager.connections
            await socket.send_text('{"MESSAGE_ID": "jararaca.authenticate", "message": {"token": "ana"}}')
            await going.wait()
            connection.finish(1006, "")
            await turns(50)
            assert not app.manager.tokens.revocations._shown
            assert not len(app.manager.tokens.expiries)


class TestHosted:
    async def test_a_route_that_asks_nobody_takes_nobody_in(self, caplog: pytest.LogCaptureFixture):
        app = FastAPI()
        interceptor = WebSocketInterceptor(authenticate=known)
        interceptor.install(app)

        @app.websocket("/ws")
        async def careless(websocket: WebSocket) -> None:
            await websocket.accept()
            await use_ws_manager().join(["news"], websocket)
            await websocket.receive()

        async with lifespan(app):
            assert (await ended(app)).code == 1011
            assert interceptor.manager.rooms == ()
        assert len(errors_in(caplog)) == 1
        assert "current_connection" in caplog.text

    async def test_who_was_refused_is_refused_again(self):
        app = FastAPI()
        interceptor = WebSocketInterceptor(authenticate=known)
        interceptor.install(app)

        async def maybe(websocket: WebSocket) -> None:
            with pytest.raises(AuthenticationFailed):
                await current_connection(websocket)

        @app.websocket("/ws", dependencies=[Depends(maybe)])
        async def served(
            connection: Annotated[WebSocketConnection, Depends(current_connection, use_cache=False)],
        ) -> None:
            pytest.fail("it was let in")

        async with lifespan(app):
            assert (await ended(app)).status == 401

    @pytest.mark.parametrize("weaker", [current_connection, connection_by(None)])
    async def test_what_a_route_says_of_who_may_connect_is_never_passed_over(
        self, weaker: Any, caplog: pytest.LogCaptureFixture
    ):
        app = FastAPI(dependencies=[Depends(weaker)])
        WebSocketInterceptor().install(app)

        @app.websocket("/ws")
        async def served(connection: Annotated[WebSocketConnection, Depends(connection_by(known))]) -> None:
            pytest.fail("it was let in")

        async with lifespan(app):
            end = await ended(app, headers=ANA)
            assert (end.status, end.code) in [(500, 1006), (None, 1011)]
        assert "two dependencies" in caplog.text


class TestCounts:
    @pytest.mark.parametrize("started", [False, True])
    async def test_nobody_waits_for_an_instance_that_has_stopped_or_not_started(self, started: bool):
        interceptor = WebSocketInterceptor(settings=WebSocketSettings(max_connections=1))
        app = application(Waiting, interceptor=interceptor)
        if started:
            async with lifespan(app):
                pass
        async with asyncio.timeout(5):
            assert (await ended(app, headers=ANA)).status == 503

    @pytest.mark.parametrize("token_from", [None, [MessageToken()]])
    async def test_b23_who_is_cancelled_anywhere_on_its_way_holds_nothing(self, token_from: Any):
        async def slowly(token: PresentedToken) -> User:
            await asyncio.sleep(0)
            return await known(token)

        class Controller:
            @WebSocketEndpoint("/ws", authenticate=slowly, token_from=token_from)
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.send(Posted())
                await connection.closed.wait()

        limits = {"max_connections": 1, "max_connections_per_user": 1}
        interceptor = WebSocketInterceptor(settings=WebSocketSettings(**limits, handshake_rate=None))
        async with running(Controller, interceptor=interceptor) as app:
            manager = app.manager

            async def come(said: asyncio.Event) -> None:
                async with connect(app.asgi, "/ws", headers=ANA if token_from is None else {}) as socket:
                    if token_from is not None:
                        await socket.send_text('{"MESSAGE_ID": "jararaca.authenticate", "message": {"token": "ana"}}')
                    await socket.receive()
                    said.set()
                    await asyncio.Event().wait()

            for count in range(200):
                said = asyncio.Event()
                coming = asyncio.create_task(come(said))
                await turns(count)
                coming.cancel()
                [end] = await asyncio.gather(coming, return_exceptions=True)
                assert isinstance(end, asyncio.CancelledError), end
                claims = manager.admission._claims
                assert claims is not None
                await until(lambda held=claims.held: not held and not manager.admission._held)
                assert not manager.connections
                assert not manager.tokens.revocations._shown
                assert not manager.delivery.rooms
                if said.is_set():
                    break
            else:
                pytest.fail("it never came in")

    async def test_b23_a_connection_that_is_called_the_same_user_twice_at_once_counts_once(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                await asyncio.gather(connection.identify("ana"), connection.identify("ana"))
                await connection.send(Posted())
                await connection.closed.wait()

        interceptor = WebSocketInterceptor(settings=WebSocketSettings(max_connections_per_user=2))
        async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
            await socket.receive()
            claims = app.manager.admission._claims
            assert claims is not None
            assert claims.held == {"user:ana": 1}


class TestRates:
    async def test_b29_what_a_client_sends_to_rooms_and_asks_of_them_counts(self):
        class Controller:
            @WebSocketEndpoint("/ws", client_rooms=[Square], client_sends=[Posted])
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.closed.wait()

        limits = RateLimitInterceptor(Rate(1, timedelta(hours=1)), per_type={Posted: Rate(2, timedelta(hours=1))})
        async with running(Controller, others=[limits]) as app:
            async with connect(app.asgi, "/ws", subprotocols=V1) as socket:

                async def answer(request: dict[str, Any]) -> str:
                    await socket.send_text(json.dumps({**request, "ref": "r"}))
                    while (told := await socket.receive_json()).get("ref") is None:
                        pass
                    code: str = told["message"].get("code", told["MESSAGE_ID"])
                    return code

                join = {"MESSAGE_ID": "jararaca.join", "message": {"rooms": ["square-1"]}}
                posted = {"room": "square-1", "MESSAGE_ID": "test_attacks.posted", "message": {"text": "x"}}
                assert await answer(join) == "jararaca.joined"
                assert await answer(join) == "rate_limited"
                send = {"MESSAGE_ID": "jararaca.send", "message": posted}
                said = [await answer(send) for _ in range(3)]
                assert said == ["jararaca.sent", "jararaca.sent", "rate_limited"]
