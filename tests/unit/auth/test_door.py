# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from jararaca_ws import (
    CookieToken,
    HeaderToken,
    MessageToken,
    PresentedToken,
    QueryTicket,
    Room,
    SubprotocolToken,
    User,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    WebSocketSettings,
    connection_by,
    current_connection,
)
from jararaca_ws.context import use_ws_manager
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError
from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from tests.unit.apps import application, running
from tests.unit.played import errors_in, until

APP = "https://app.example.com"


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_door.posted"

    text: str = ""


async def checked(token: PresentedToken) -> User | None:
    """`good-ana` is ana's."""
    return User(id=token.value.removeprefix("good-"), claims={"from": token.source}) if "good-" in token.value else None


def serving(**access: Any) -> type:
    class Controller:
        @WebSocketEndpoint("/ws", **access)
        async def serve(self, connection: WebSocketConnection) -> None:
            user = connection.user
            await connection.send(Posted(text="nobody" if user is None else f"{user.id} by {user.claims.get('from')}"))
            async for message in connection:
                await connection.send(message)

    return Controller


async def said(socket: Any) -> str:
    text: str = (await socket.receive_json())["message"]["text"]
    return text


async def refused(app: Any, path: str = "/ws", **options: Any) -> WebSocketClosed:
    with pytest.raises(WebSocketClosed) as caught:
        async with connect(app, path, **options):
            pytest.fail("it was accepted")
    return caught.value


def in_subprotocol(token: str) -> str:
    return "jararaca.token." + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def authenticate(token: str, **more: Any) -> str:
    return json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": {"token": token}, **more})


class TestSources:
    async def test_a_header(self):
        async with running(serving(authenticate=checked)) as app:
            async with connect(app.asgi, "/ws", headers={"Authorization": "bearer good-ana"}) as socket:
                assert await said(socket) == "ana by header"
                [connection] = app.manager.connections
                assert connection.user_id == "ana"
                await app.manager.send_to_user("ana", Posted(text="hello"))
                assert await said(socket) == "hello"
            for bad in ("Bearer bad", "Basic good-ana", "Bearer", "Bearer ", "good-ana", "Bearer " + "good-" * 2000):
                assert (await refused(app.asgi, headers={"Authorization": bad})).status == 401
            assert (await refused(app.asgi)).status == 401
            await until(lambda: not app.manager.connections)

    async def test_a_header_of_another_name(self):
        access = {"authenticate": checked, "token_from": [HeaderToken("X-Key", scheme="")]}
        async with running(serving(**access)) as app, connect(app.asgi, "/ws", headers={"x-key": "good-k"}) as socket:
            assert await said(socket) == "k by header"

    async def test_a_subprotocol_that_nobody_sees_again(self, caplog: pytest.LogCaptureFixture):
        caplog.set_level(logging.DEBUG)
        token = in_subprotocol("good-âna~~~")
        async with running(serving(authenticate=checked)) as app:
            async with connect(
                app.asgi,
                "/ws",
                subprotocols=[token, "jararaca.v1"],
                headers={"Sec-WebSocket-Protocol": f"{token}, jararaca.v1"},
            ) as socket:
                assert await said(socket) == "âna~~~ by subprotocol"
                assert socket.subprotocol == "jararaca.v1"
                [connection] = app.manager.connections
                assert connection.websocket.scope["subprotocols"] == ["jararaca.v1"]
                assert connection.websocket.headers["sec-websocket-protocol"] == "jararaca.v1"
            for bad in ("jararaca.token.", "jararaca.token.*", "jararaca.token._-8", in_subprotocol("bad")):
                assert (await refused(app.asgi, subprotocols=["jararaca.v1", bad])).status == 401
        assert token not in caplog.text
        assert "good-" not in caplog.text

    async def test_a_cookie_of_a_page_that_may(self):
        access = {"authenticate": checked, "token_from": [CookieToken("session")], "allowed_origins": [APP]}
        cookie = {"Cookie": "a=b; session=good-ana"}
        async with running(serving(**access)) as app:
            async with connect(app.asgi, "/ws", headers={**cookie, "Origin": APP}) as socket:
                assert await said(socket) == "ana by cookie"
            # Before anybody is asked who it is, and whatever the cookie says.
            for origin in ("https://app.example.com.evil.io", "null"):
                end = await refused(app.asgi, headers={**cookie, "Origin": origin})
                assert (end.status, end.code) in [(403, 1006), (None, 1008)]
            assert (await refused(app.asgi, headers={"Origin": APP})).status == 401

    async def test_b25_without_an_origin_a_cookie_does_not_count_and_a_header_does(self):
        sources = [HeaderToken(), CookieToken("session")]
        access = {"authenticate": checked, "token_from": sources, "allowed_origins": [APP]}
        async with running(serving(**access)) as app:
            async with connect(app.asgi, "/ws", headers={"Authorization": "Bearer good-ana"}) as socket:
                assert await said(socket) == "ana by header"
            end = await refused(app.asgi, headers={"Cookie": "session=good-ana"})
            assert (end.status, end.code) in [(403, 1006), (None, 1008)]

    async def test_the_first_source_that_has_a_token_counts_alone(self):
        async with running(serving(authenticate=checked, token_from=[HeaderToken(), SubprotocolToken()])) as app:
            offered = [in_subprotocol("good-ana"), "jararaca.v1"]
            assert (
                await refused(app.asgi, subprotocols=offered, headers={"Authorization": "Bearer bad"})
            ).status == 401

    async def test_b26_a_query_string_counts_for_nothing(self):
        async with running(serving(authenticate=checked)) as app:
            for name in ("token", "ticket", "access_token", "authorization"):
                assert (await refused(app.asgi, f"/ws?{name}=good-ana")).status == 401


class Free(Room, pattern="free"): ...


class TestFirstMessage:
    ACCESS: ClassVar[dict[str, Any]] = {"authenticate": checked, "token_from": [MessageToken()]}

    async def test_it_says_who_it_is(self):
        async with (
            running(serving(**self.ACCESS)) as app,
            connect(app.asgi, "/ws", subprotocols=["jararaca.v1"]) as socket,
        ):
            assert not app.manager.connections
            await socket.send_text(authenticate("good-ana", ref="1"))
            await socket.send_text(json.dumps({"MESSAGE_ID": "test_door.posted", "message": {"text": "at once"}}))
            assert await socket.receive_json() == {
                "MESSAGE_ID": "jararaca.authenticated",
                "message": {"user_id": "ana", "expires_in_ms": None},
                "ref": "1",
            }
            assert await said(socket) == "ana by message"
            assert await said(socket) == "at once"

    async def test_b27_who_does_not_is_closed_with_4502(self):
        settings = WebSocketSettings(auth_timeout=timedelta(milliseconds=20))
        async with running(serving(**self.ACCESS), interceptor=WebSocketInterceptor(settings=settings)) as app:
            async with connect(app.asgi, "/ws") as socket:
                assert (await socket.closed()).code == 4502
            assert not app.manager.connections

    @pytest.mark.parametrize(
        "first",
        [
            authenticate("bad"),
            authenticate(""),
            authenticate("good-" * 2000),
            '{"MESSAGE_ID":"jararaca.authenticate","message":{}}',
            '{"MESSAGE_ID":"jararaca.join","message":{"rooms":["free"]}}',
            '{"MESSAGE_ID":"jararaca.recover","message":{"rooms":{}}}',
            '{"MESSAGE_ID":"test_door.posted","message":{}}',
            "no JSON",
            "",
        ],
    )
    async def test_anything_else_is_closed_and_not_looked_at(self, first: str, caplog: pytest.LogCaptureFixture):
        access = {**self.ACCESS, "client_rooms": [Free]}
        offered = ["jararaca.v1", "jararaca.recover"]
        async with running(serving(**access)) as app, connect(app.asgi, "/ws", subprotocols=offered) as socket:
            await socket.send_text(first)
            await socket.send_text('{"MESSAGE_ID":"jararaca.join","message":{"rooms":["free"]}}')
            with pytest.raises(WebSocketClosed) as closed:
                await socket.receive()
            assert closed.value.code == 4500
            assert app.manager.rooms == ()
        assert not errors_in(caplog)

    async def test_a_binary_frame_is_no_token(self):
        async with running(serving(**self.ACCESS)) as app, connect(app.asgi, "/ws") as socket:
            await socket.send_bytes(authenticate("good-ana").encode())
            assert (await socket.closed()).code == 4500

    async def test_who_goes_instead_leaves_nothing(self, caplog: pytest.LogCaptureFixture):
        async with running(serving(**self.ACCESS)) as app:
            async with connect(app.asgi, "/ws"):
                pass
            assert not app.manager.connections
        assert not errors_in(caplog)

    async def test_positions_and_requests_follow_it(self):
        access = {**self.ACCESS, "client_rooms": [Free]}
        offered = ["jararaca.v1", "jararaca.recover"]
        async with running(serving(**access)) as app, connect(app.asgi, "/ws", subprotocols=offered) as socket:
            await socket.send_text(authenticate("good-ana"))
            await socket.send_text('{"MESSAGE_ID":"jararaca.recover","message":{"rooms":{}}}')
            await socket.send_text('{"MESSAGE_ID":"jararaca.join","ref":"j","message":{"rooms":["free"]}}')
            told = [(await socket.receive_json())["MESSAGE_ID"] for _ in range(3)]
            assert sorted(told) == ["jararaca.authenticated", "jararaca.joined", "test_door.posted"]
            [connection] = app.manager.connections
            assert connection.recovery is not None
            assert connection.recovery.has_come

    async def test_a_handler_that_does_not_read_does_not_stop_the_reading(self):
        class Controller:
            @WebSocketEndpoint("/ws", authenticate=checked, token_from=[MessageToken()])
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.send(Posted(text="in"))
                await connection.closed.wait()

        settings = WebSocketSettings(max_inbound_messages=2, read_patience=timedelta(0))
        async with running(Controller, interceptor=WebSocketInterceptor(settings=settings)) as app:
            async with connect(app.asgi, "/ws") as socket:
                await socket.send_text(authenticate("good-ana"))
                assert await said(socket) == "in"
                [connection] = app.manager.connections
                for _ in range(10):
                    await socket.send_text("x")
                await until(lambda: connection.inbound.discarded == 8)


class TestAuthenticate:
    async def test_it_has_parameters_and_dependencies_as_in_fastapi_and_they_are_closed(self):
        steps: list[str] = []

        async def session() -> AsyncIterator[str]:
            steps.append("opened")
            yield "s"
            steps.append("closed")

        async def asked(
            presented: PresentedToken,
            session: Annotated[str, Depends(session)],
            tenant: str,
            x_device: Annotated[str, Header()] = "",
        ) -> User:
            assert use_ws_manager() is not None
            return User(id=f"{presented.value}-{session}-{tenant}-{x_device}")

        class Controller:
            @WebSocketEndpoint("/{tenant}/ws", authenticate=asked)
            async def serve(self, connection: WebSocketConnection, tenant: str) -> None:
                assert steps == ["opened", "closed"]
                assert connection.user is not None
                await connection.send(Posted(text=connection.user.id))

        async with running(Controller) as app:
            headers = {"Authorization": "Bearer t", "X-Device": "d"}
            async with connect(app.asgi, "/acme/ws", headers=headers) as socket:
                assert await said(socket) == "t-s-acme-d"

    async def test_an_object_will_do(self):
        class Checker:
            async def __call__(self, token: PresentedToken) -> User:
                return User(id="object")

        async with running(serving(authenticate=Checker())) as app:
            async with connect(app.asgi, "/ws", headers={"Authorization": "Bearer t"}) as socket:
                assert await said(socket) == "object by None"

    @pytest.mark.parametrize("status", [401, 403])
    async def test_what_fastapi_refuses_with_is_a_refusal(self, status: int, caplog: pytest.LogCaptureFixture):
        async def asked(token: PresentedToken) -> User:
            raise HTTPException(status)

        async with running(serving(authenticate=asked)) as app:
            assert (await refused(app.asgi, headers={"Authorization": "Bearer t"})).status == 401
        assert not errors_in(caplog)

    async def test_a_parameter_that_does_not_fit_refuses(self, caplog: pytest.LogCaptureFixture):
        async def asked(token: PresentedToken, n: int) -> User:
            pytest.fail("it ran")

        async with running(serving(authenticate=asked)) as app:
            assert (await refused(app.asgi, "/ws?n=hunter2", headers={"Authorization": "Bearer t"})).status == 401
        assert "hunter2" not in caplog.text

    async def test_what_it_raises_is_our_failure_and_logged_once(self, caplog: pytest.LogCaptureFixture):
        async def asked(token: PresentedToken) -> User:
            raise RuntimeError("the database is on fire")

        async with running(serving(authenticate=asked)) as app:
            end = await refused(app.asgi, headers={"Authorization": "Bearer t"})
            assert (end.status, end.code) in [(500, 1006), (None, 1011)]
            assert "fire" not in end.reason
        assert len(errors_in(caplog)) == 1

    @pytest.mark.parametrize("user", ["ana", {"id": "ana"}])
    async def test_what_is_no_user_is_our_failure(self, user: Any, caplog: pytest.LogCaptureFixture):
        async def asked(token: PresentedToken) -> Any:
            return user

        async with running(serving(authenticate=asked)) as app:
            assert (await refused(app.asgi, headers={"Authorization": "Bearer t"})).status == 500
        assert len(errors_in(caplog)) == 1

    @pytest.mark.parametrize("user_id", ["", "a\r\nb", "x" * 256])
    async def test_an_id_that_is_none_is_a_refusal(self, user_id: str):
        async def asked(token: PresentedToken) -> User:
            return User(id=user_id)

        async with running(serving(authenticate=asked)) as app:
            assert (await refused(app.asgi, headers={"Authorization": "Bearer t"})).status == 401

    async def test_one_that_hangs_is_answered_with_503(self):
        async def asked(token: PresentedToken) -> User:
            await asyncio.Event().wait()
            raise AssertionError

        settings = WebSocketSettings(auth_timeout=timedelta(milliseconds=20))
        async with running(serving(authenticate=asked), interceptor=WebSocketInterceptor(settings=settings)) as app:
            assert (await refused(app.asgi, headers={"Authorization": "Bearer t"})).status == 503

    async def test_b36_who_it_is_comes_from_the_connection_alone(self):
        async with running(serving(authenticate=checked)) as app:
            async with connect(app.asgi, "/ws", headers={"Authorization": "Bearer good-ana"}) as socket:
                assert await said(socket) == "ana by header"
                envelope = {
                    "MESSAGE_ID": "test_door.posted",
                    "message": {"text": "x"},
                    "user_id": "root",
                    "user": {"id": "root"},
                }
                await socket.send_text(json.dumps(envelope))
                assert await socket.receive_json() == {"MESSAGE_ID": "test_door.posted", "message": {"text": "x"}}
                [connection] = app.manager.connections
                assert connection.user is not None
                assert (connection.user.id, connection.user_id) == ("ana", "ana")

    async def test_nothing_is_asked_of_interceptors_before(self):
        entered: list[Any] = []

        class Watching:
            def intercept(self, app_context: Any) -> Any:
                entered.append(app_context)
                raise AssertionError("it ran")

        async with running(serving(authenticate=checked), others=[Watching()]) as app:
            assert (await refused(app.asgi)).status == 401
        assert not entered


class TestWhereItIsSaid:
    async def test_what_the_interceptor_says_holds_for_all_who_say_nothing_else(self):
        class Controller:
            @WebSocketEndpoint("/default")
            async def default(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint("/public", authenticate=None)
            async def public(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint("/cookie", token_from=[CookieToken("s")])
            async def cookie(self, connection: WebSocketConnection) -> None: ...

        interceptor = WebSocketInterceptor(authenticate=checked, allowed_origins=[APP])
        async with running(Controller, interceptor=interceptor) as app:
            assert (await refused(app.asgi, "/default")).status == 401
            async with connect(app.asgi, "/public") as socket:
                assert (await socket.closed()).code == 1000
            async with connect(app.asgi, "/cookie", headers={"Cookie": "s=good-a", "Origin": APP}) as socket:
                assert (await socket.closed()).code == 1000
            for path in ("/default", "/public", "/cookie"):
                end = await refused(app.asgi, path, headers={"Origin": "https://evil.io", "Cookie": "s=good-a"})
                assert (end.status, end.code) in [(403, 1006), (None, 1008)]

    async def test_a_router_and_its_application(self):
        said_to: list[Any] = []

        def router(**access: Any) -> WebSocketRouter:
            made = WebSocketRouter("/ws", **access)

            @made.on_connect
            async def connected(connection: WebSocketConnection) -> None:
                said_to.append(connection.user and connection.user.id)

            return made

        app = FastAPI()
        WebSocketInterceptor(authenticate=checked).install(app)
        app.include_router(router(), prefix="/default")
        app.include_router(router(authenticate=None), prefix="/public")
        async with lifespan(app):
            assert (await refused(app, "/default/ws")).status == 401
            async with connect(app, "/default/ws", headers={"Authorization": "Bearer good-ana"}):
                pass
            async with connect(app, "/public/ws"):
                pass
        assert said_to == ["ana", None]

    async def test_a_route_of_an_application_of_your_own(self):
        app = FastAPI()
        WebSocketInterceptor(authenticate=checked, token_from=[HeaderToken(), MessageToken()]).install(app)

        @app.websocket("/ws")
        async def serve(connection: Annotated[WebSocketConnection, Depends(current_connection)]) -> None:
            await connection.accept()
            assert connection.user is not None
            await connection.send(Posted(text=connection.user.id))
            await connection.closed.wait()

        async with lifespan(app):
            assert (await refused(app, headers={"Authorization": "Bearer bad"})).status == 401
            async with connect(app, "/ws", headers={"Authorization": "Bearer good-ana"}) as socket:
                assert await said(socket) == "ana"
            async with connect(app, "/ws") as socket:
                await socket.send_text(authenticate("good-rui"))
                assert await said(socket) == "rui"
            async with connect(app, "/ws") as socket:
                await socket.send_text(authenticate("bad"))
                assert (await socket.closed()).code == 4500

    async def test_a_route_of_your_own_may_have_another_way_in(self):
        app = FastAPI()
        WebSocketInterceptor(authenticate=checked).install(app)
        by_key = connection_by(checked, token_from=[HeaderToken("x-key", scheme="")])

        @app.websocket("/public")
        async def public(connection: Annotated[WebSocketConnection, Depends(connection_by(None))]) -> None:
            await connection.accept()
            await connection.send(Posted(text=str(connection.user)))

        @app.websocket("/key")
        async def key(connection: Annotated[WebSocketConnection, Depends(by_key)]) -> None:
            assert connection.user is not None
            await connection.accept()
            await connection.send(Posted(text=connection.user.id))

        async with lifespan(app):
            async with connect(app, "/public") as socket:
                assert await said(socket) == "None"
            async with connect(app, "/key", headers={"X-Key": "good-ana"}) as socket:
                assert await said(socket) == "ana"
            assert (await refused(app, "/key", headers={"Authorization": "Bearer good-ana"})).status == 401

    @pytest.mark.parametrize(
        ("access", "said"),
        [
            ({"authenticate": checked, "token_from": [CookieToken("s")]}, "origins"),
            ({"authenticate": checked, "token_from": []}, "token_from is empty"),
            ({"authenticate": checked, "token_from": ["cookie"]}, "token_from has 'cookie'"),
            ({"token_from": [MessageToken()]}, "authenticate="),
            ({"authenticate": lambda token: None}, "async def"),
            ({"authenticate": "jwt"}, "async def"),
            ({"allowed_origins": ["app.example.com"]}, "allowed_origins"),
        ],
    )
    def test_what_cannot_be_is_refused_at_the_start(self, access: dict[str, Any], said: str):
        with pytest.raises(ConfigurationError, match=said):
            application(serving(**access))
        with pytest.raises(ConfigurationError, match=said):
            WebSocketInterceptor(**access)
        with pytest.raises(ConfigurationError, match=said):
            connection_by(**{"authenticate": None, **access})

    def test_who_does_not_ask_for_the_token_is_refused_at_the_start(self):
        async def asked() -> User:
            raise AssertionError

        with pytest.raises(ConfigurationError, match="PresentedToken"):
            application(serving(authenticate=asked))

    async def test_a_router_is_refused_at_the_start_of_its_application(self):
        app = FastAPI()
        WebSocketInterceptor().install(app)
        made = WebSocketRouter("/ws", authenticate=checked, token_from=[CookieToken("s")])

        @made.receive(Posted)
        async def posted(message: Posted) -> None: ...

        app.include_router(made)
        with pytest.raises(RuntimeError, match="origins"):
            async with lifespan(app):
                pass


class TestTickets:
    ACCESS: ClassVar[dict[str, Any]] = {"authenticate": checked, "token_from": [HeaderToken(), QueryTicket()]}

    async def test_b26_a_ticket_lets_its_user_in_once(self):
        expires_at = datetime.now(UTC) + timedelta(hours=1)
        async with running(serving(**self.ACCESS)) as app:
            user = User(id="ana", claims={"from": "http"}, expires_at=expires_at, token_id="t-1")
            ticket = await app.manager.mint_ticket(user)
            async with connect(app.asgi, f"/ws?ticket={ticket}") as socket:
                assert await said(socket) == "ana by http"
                [connection] = app.manager.connections
                assert connection.user is not None
                assert (connection.user.expires_at, connection.user.token_id) == (expires_at, "t-1")
                assert (await refused(app.asgi, f"/ws?ticket={ticket}")).status == 401
            for bad in ("", "x", "good-ana", "x" * 9000):
                assert (await refused(app.asgi, f"/ws?ticket={bad}")).status == 401

    async def test_tickets_alone_will_do(self):
        async with running(serving(authenticate=None, token_from=[QueryTicket("t")])) as app:
            assert (await refused(app.asgi)).status == 401
            ticket = await app.manager.mint_ticket(User(id="ana"))
            async with connect(app.asgi, f"/ws?t={ticket}", subprotocols=["jararaca.v1"]) as socket:
                assert await said(socket) == "ana by None"
                await socket.send_text(authenticate(await app.manager.mint_ticket(User(id="ana"))))
                assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.authenticated"
                await socket.send_text(authenticate(ticket))
                assert (await socket.closed()).code == 4500

    @pytest.mark.parametrize("life", [timedelta(0), timedelta(seconds=30, milliseconds=1)])
    async def test_a_ticket_lives_for_30_s_at_most(self, life: timedelta):
        async with running(serving(**self.ACCESS)) as app:
            with pytest.raises(ValueError, match="30 s"):
                await app.manager.mint_ticket(User(id="ana"), life)

    async def test_one_that_is_too_old_opens_nothing(self):
        async with running(serving(**self.ACCESS)) as app:
            ticket = await app.manager.mint_ticket(User(id="ana"), timedelta(milliseconds=1))
            await asyncio.sleep(0.01)  # it is over for certain
            assert (await refused(app.asgi, f"/ws?ticket={ticket}")).status == 401


class TestRevocation:
    async def known(self, token: PresentedToken) -> User:
        who, token_id, issued_s = token.value.split(":")
        return User(id=who, token_id=token_id, issued_at=datetime.fromtimestamp(float(issued_s), UTC))

    def bearer(self, who: str, token_id: str, ago_s: float = 10.0) -> dict[str, str]:
        return {"Authorization": f"Bearer {who}:{token_id}:{datetime.now(UTC).timestamp() - ago_s}"}

    async def test_b28_a_token_that_is_revoked_counts_no_more(self):
        async with running(serving(authenticate=self.known)) as app:
            one, two = self.bearer("ana", "t-1"), self.bearer("ana", "t-2")
            async with connect(app.asgi, "/ws", headers=one) as first, connect(app.asgi, "/ws", headers=two) as second:
                await said(first), await said(second)
                await app.manager.revoke(token_id="t-1")
                assert (await first.closed()).code == 4500
                assert (await refused(app.asgi, headers=one)).status == 401
                await second.send_text(json.dumps({"MESSAGE_ID": "test_door.posted", "message": {"text": "still"}}))
                assert await said(second) == "still"

    async def test_b28_all_of_a_user_but_those_that_were_issued_later(self):
        async with running(serving(authenticate=self.known)) as app:
            old, other = self.bearer("ana", "t-1"), self.bearer("rui", "t-2")
            async with (
                connect(app.asgi, "/ws", headers=old) as first,
                connect(app.asgi, "/ws", headers=other) as second,
            ):
                await said(first), await said(second)
                await app.manager.revoke(user_id="ana")
                assert (await first.closed()).code == 4500
                assert (await refused(app.asgi, headers=old)).status == 401
                async with connect(app.asgi, "/ws", headers=self.bearer("ana", "t-3", ago_s=-1)) as again:
                    await said(again)
                assert len(app.manager.connections) == 1

    async def test_b28_a_revocation_in_the_middle_of_a_handshake_is_seen(self, monkeypatch: pytest.MonkeyPatch):
        async with running(serving(authenticate=self.known)) as app:
            revocations, headers = app.manager.tokens.revocations, self.bearer("ana", "t-1")
            asked = revocations.check

            async def slowly(user: User) -> None:
                await asked(user)
                await app.manager.revoke(token_id="t-1")  # after the backend was asked

            monkeypatch.setattr(revocations, "check", slowly)
            assert (await refused(app.asgi, headers=headers)).status == 401
            assert not revocations._shown

    async def test_b28_a_new_token_that_was_revoked_ends_the_connection(self):
        async with running(serving(authenticate=self.known)) as app:
            await app.manager.revoke(token_id="t-2")
            async with connect(app.asgi, "/ws", headers=self.bearer("ana", "t-1")) as socket:
                await said(socket)
                await socket.send_text(authenticate(f"ana:t-2:{datetime.now(UTC).timestamp()}"))
                assert (await socket.closed()).code == 4500

    async def test_a_user_without_a_token_is_disconnected_too(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.identify("ana")
                await connection.send(Posted())
                await connection.closed.wait()

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await socket.receive()
            await app.manager.revoke(user_id="ana")
            assert (await socket.closed()).code == 4500

    async def test_it_wants_one_of_the_two(self):
        async with running(serving(authenticate=self.known)) as app:
            with pytest.raises(ValueError, match="one of them"):
                await app.manager.revoke()
            with pytest.raises(ValueError, match="one of them"):
                await app.manager.revoke(user_id="a", token_id="b")
            with pytest.raises(ValueError, match="lifetime"):
                await app.manager.revoke(user_id="a", lifetime=timedelta(0))

    async def test_who_has_gone_is_forgotten(self):
        async with running(serving(authenticate=self.known)) as app:
            headers = self.bearer("ana", "t-1")
            async with connect(app.asgi, "/ws", headers=headers), connect(app.asgi, "/ws", headers=headers) as socket:
                await said(socket)
                assert len(app.manager.tokens.revocations._shown["token", "t-1"]) == 2
            await until(lambda: not app.manager.tokens.revocations._shown)


async def test_a_time_without_a_zone_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match="time zone"):
        User(id="ana", expires_at=datetime(2026, 1, 1))


def test_a_token_is_not_in_its_repr():
    assert "hunter2" not in repr(PresentedToken("hunter2", "header"))
    assert isinstance(AuthenticationFailed("x"), Exception)
