# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, WebSocket, WebSocketException
from pydantic import BaseModel, ValidationError

from jararaca_ws.context import use_ws_manager
from jararaca_ws.errors import ConfigurationError, InvalidMessage
from jararaca_ws.inbound.websocket_router import WebSocketRouter
from jararaca_ws.interceptors.base import AppTransactionContext
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.played import errors_in, until


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_websocket_router.posted"

    text: str = ""


class Told(WebSocketMessage):
    MESSAGE_ID = "test_websocket_router.told"

    what: Any = None


POSTED = json.dumps({"MESSAGE_ID": Posted.MESSAGE_ID, "message": {"text": "hello"}})


@asynccontextmanager
async def serving(*routers: APIRouter, prefix: str = "/ws", others: Any = ()) -> AsyncIterator[FastAPI]:
    app = create_http_server(Microservice(interceptors=[WebSocketInterceptor(), *others]))
    for router in routers:
        app.include_router(router, prefix=prefix)
    async with lifespan(app):
        yield app


async def refusal(app: FastAPI, path: str) -> WebSocketClosed:
    with pytest.raises(WebSocketClosed) as refused:
        async with connect(app, path):
            pass
    return refused.value


def telling(what: Any = None) -> WebSocketRouter:
    router = WebSocketRouter()

    @router.receive(Posted)
    async def posted(message: Posted) -> Told:
        return Told(what=what or message.text)

    return router


async def answer(app: FastAPI, path: str, text: str = POSTED) -> Any:
    async with connect(app, path) as socket:
        await socket.send_text(text)
        return (await socket.receive_json())["message"]["what"]


class TestInclusion:
    async def test_a_router_serves_where_it_is_included(self):
        async with serving(telling()) as app:
            assert await answer(app, "/ws") == "hello"

    async def test_path_and_prefixes_add_up_with_their_parameters(self):
        inner = WebSocketRouter("/{room}", prefix="/inner")

        @inner.receive(Posted)
        async def posted(tenant: str, room: str, n: int) -> Told:
            return Told(what=[tenant, room, n])

        outer = APIRouter(prefix="/{tenant}")
        outer.include_router(inner, prefix="/{n}")
        async with serving(outer) as app:
            assert await answer(app, "/ws/acme/7/inner/lobby") == ["acme", "lobby", 7]

    async def test_routers_nest_and_one_without_handlers_serves_nothing(self):
        outer = WebSocketRouter()
        outer.include_router(telling("one"), prefix="/one")
        outer.include_router(telling("two"), prefix="/two")
        async with serving(outer, prefix="") as app:
            assert [await answer(app, path) for path in ("/one", "/two")] == ["one", "two"]
            assert (await refusal(app, "/")).code == 1000, "starlette's way to say 404"

    async def test_one_router_may_be_included_twice_below_other_parameters(self):
        router = WebSocketRouter()

        @router.receive(Posted)
        async def posted(room: str = "none") -> Told:
            return Told(what=room)

        app = create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
        app.include_router(router, prefix="/a/{room}")
        app.include_router(router, prefix="/b")
        async with lifespan(app):
            assert [await answer(app, path) for path in ("/a/x", "/b?room=y", "/b")] == ["x", "y", "none"]

    async def test_dependencies_of_the_inclusion_are_closed_when_the_client_is_connected(self):
        steps: list[str] = []

        async def session(x_user: Annotated[str, Header()]) -> AsyncIterator[None]:
            steps.append(f"opened for {x_user}")
            yield
            steps.append("closed")

        app = create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
        app.include_router(telling(), prefix="/ws", dependencies=[Depends(session)])
        async with lifespan(app), connect(app, "/ws", headers={"X-User": "ann"}) as socket:
            await socket.send_text(POSTED)
            await socket.receive()
            assert steps == ["opened for ann", "closed"]

    async def test_a_dependency_of_the_router_refuses_the_handshake(self):
        def refuse() -> None:
            raise HTTPException(401)

        router = WebSocketRouter(dependencies=[Depends(refuse)])
        router.on_connect(_nothing)
        async with serving(router) as app:
            assert (await refusal(app, "/ws")).status == 401

    async def test_an_application_without_an_interceptor_says_so(self):
        app = FastAPI()
        app.include_router(telling(), prefix="/ws")
        with pytest.raises(RuntimeError, match="without a WebSocketInterceptor"):
            async with lifespan(app):
                pass
        with pytest.raises(WebSocketClosed):
            await answer(app, "/ws")


async def _nothing() -> None: ...


class TestHooks:
    async def test_on_connect_joins_before_the_client_is_accepted(self):
        router = WebSocketRouter("/{room}")

        @router.on_connect
        async def joins(connection: WebSocketConnection, room: str, raw: WebSocket) -> None:
            assert not connection.accepted
            assert raw is connection.websocket
            await connection.join(room)
            await Told(what="at once").send(room)

        async with serving(router) as app, connect(app, "/ws/a") as socket:
            assert (await socket.receive_json())["message"]["what"] == "at once"
            assert app.state.jararaca_ws_runtime.interceptors[0].manager.rooms == ("a",)

    @pytest.mark.parametrize(
        ("error", "code", "status"),
        [
            (WebSocketException(4507, "not you"), 4507, None),
            (HTTPException(401), 1006, 401),
            (RuntimeError(), 1006, 500),
        ],
        ids=["WebSocketException", "HTTPException", "other"],
    )
    async def test_on_connect_can_refuse_and_then_nothing_has_disconnected(
        self, error: Exception, code: int, status: int | None
    ):
        router = WebSocketRouter()

        @router.on_connect
        async def refuse() -> None:
            raise error

        @router.on_disconnect
        async def gone(connection: WebSocketConnection, code: int, reason: str) -> None:
            pytest.fail("it ran")

        async with serving(router) as app:
            if status is None:
                async with connect(app, "/ws") as socket:
                    assert (await socket.closed()).code == code
            else:
                end = await refusal(app, "/ws")
                assert (end.code, end.status) == (code, status)

    @pytest.mark.parametrize("closed_by", ["client", "handler", "exception", "shutdown"])
    async def test_on_disconnect_is_called_once_with_the_end(self, closed_by: str, caplog: pytest.LogCaptureFixture):
        ends: list[Any] = []
        router = WebSocketRouter()

        @router.receive(Posted)
        async def posted(connection: WebSocketConnection) -> None:
            if closed_by == "handler":
                await connection.close(4100, "enough")
            raise WebSocketException(4100, "enough")

        @router.on_disconnect
        async def gone(connection: WebSocketConnection, code: int, reason: str) -> None:
            ends.append((code, reason, tuple(connection.rooms), len(use_ws_manager().connections)))
            await Told(what="gone").send("others")

        @router.on_connect
        async def joins(connection: WebSocketConnection) -> None:
            await connection.join("a")

        async with serving(router) as app:
            async with connect(app, "/ws") as socket:
                if closed_by == "client":
                    await socket.close(4100, "enough")
                elif closed_by == "shutdown":
                    await app.state.jararaca_ws_runtime.interceptors[0].manager.stop()
                else:
                    await socket.send_text(POSTED)
                await until(lambda: ends)
        if closed_by == "shutdown":
            assert [end[0] for end in ends] == [1012]
        else:
            assert ends == [(4100, "enough", (), 0)]
        assert not errors_in(caplog)

    async def test_on_disconnect_is_called_where_the_server_cancels_us(self):
        ends: list[int] = []
        router = telling()

        @router.on_disconnect
        async def gone(connection: WebSocketConnection, code: int, reason: str) -> None:
            await asyncio.sleep(0)
            ends.append(code)

        async with serving(router) as app, connect(app, "/ws"):
            (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "in-loop WebSocket /ws"]
            task.cancel()
            await until(task.done)
        assert ends == [1012]

    async def test_on_disconnect_that_raises_is_logged(self, caplog: pytest.LogCaptureFixture):
        router = WebSocketRouter()

        @router.on_disconnect
        async def gone(connection: WebSocketConnection, code: int, reason: str) -> None:
            raise RuntimeError

        async with serving(router) as app, connect(app, "/ws"):
            pass
        assert len(errors_in(caplog)) == 1

    async def test_on_fallback_gets_what_is_no_message_and_nothing_is_a_strike(self):
        router = telling()

        @router.on_fallback
        async def fallback(connection: WebSocketConnection, raw: str, error: InvalidMessage) -> Told:
            assert isinstance(error.__cause__, ValidationError)
            return Told(what=[raw, error.code])

        async with serving(router) as app, connect(app, "/ws", subprotocols=[SUBPROTOCOL]) as socket:
            for _ in range(5):
                await socket.send_text("hello")
                assert (await socket.receive_json())["message"]["what"] == ["hello", "bad_request"]
            for _ in range(5):
                await socket.send_text('{"MESSAGE_ID": "?", "message": {}, "ref": "r"}')
                assert (await socket.receive_json())["message"]["what"][1] == "unknown_type"
                assert (await socket.receive_json())["ref"] == "r"


class TestChoice:
    async def test_flat_payloads_with_and_without_a_discriminator(self):
        class Say(BaseModel):
            action: Literal["say"]
            text: str

        class Move(BaseModel):
            action: Literal["move"]
            by: int

        for discriminator in ("action", None):
            router = WebSocketRouter(discriminator=discriminator)

            @router.receive(Say)
            async def say(message: Say) -> Any:
                return {"what": message.text}

            @router.receive(Move)
            async def move(message: Move) -> Any:
                return {"what": message.by}

            async with serving(router) as app, connect(app, "/ws") as socket:
                await socket.send_text('{"action": "say", "text": "hello"}')
                await socket.send_text('{"action": "move", "by": 2}')
                assert [await socket.receive_json() for _ in range(2)] == [{"what": "hello"}, {"what": 2}]

    async def test_a_dispatcher_is_given_what_came_and_the_handlers(self):
        steps: list[str] = []

        async def dispatcher(connection: WebSocketConnection, handlers: Any, raw: str) -> Any:
            if raw.startswith("LEFT-"):
                return await handlers[Posted](connection, Posted(text=raw[5:]))
            await Told(what="staged").send(f"room-{raw}")
            raise HTTPException(403)

        router = WebSocketRouter("/{room}", dispatcher=dispatcher)

        async def session() -> AsyncIterator[int]:
            steps.append("opened")
            yield 1
            steps.append("closed")

        @router.receive(Posted)
        async def posted(message: Posted, room: str, session: Annotated[int, Depends(session)]) -> Told:
            return Told(what=[message.text, room, session])

        async with serving(router) as app, connect(app, "/ws/a", subprotocols=[SUBPROTOCOL]) as socket:
            await socket.send_text("LEFT-hello")
            assert (await socket.receive_json())["message"]["what"] == ["hello", "a", 1]
            assert steps == ["opened", "closed"]
            await socket.send_text("RIGHT-hello")
            assert (await socket.receive_json())["message"]["code"] == "permission_denied"

    async def test_binary_mode(self):
        router = WebSocketRouter(binary=True)

        @router.receive(Posted)
        async def posted(message: Posted) -> Told:
            return Told(what=message.text)

        async with serving(router) as app, connect(app, "/ws") as socket:
            await socket.send_bytes(POSTED.encode())
            frame = await socket.receive()
            assert isinstance(frame, bytes)
            assert json.loads(frame)["message"]["what"] == "hello"
            await socket.send_text(POSTED)
            assert (await socket.closed()).code == 1003


class TestUnitsOfWork:
    async def test_interceptors_go_around_connecting_each_message_and_the_end(self):
        steps: list[tuple[str, bool]] = []

        class Log:
            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                data = app_context.transaction_data
                assert data.context_type == "websocket"
                assert app_context.controller is WebSocketRouter
                yield
                steps.append((app_context.handler.__name__, data.message is None))

        router = telling()
        router.on_connect(_nothing)

        @router.on_disconnect
        async def gone(connection: WebSocketConnection, code: int, reason: str) -> None: ...

        async with serving(router, others=[Log()]) as app:
            assert await answer(app, "/ws") == "hello"
        assert steps == [("_nothing", True), ("posted", False), ("gone", True)]


class TestMistakes:
    @pytest.mark.parametrize("hosted", [False, True])
    async def test_a_handshake_without_its_parameters_is_refused_and_the_log_says_which(self, hosted, caplog):
        router = WebSocketRouter("/doors")

        @router.on_connect
        async def knock(connection: WebSocketConnection, number: int, token: str) -> None: ...

        app = FastAPI() if hosted else create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
        if hosted:
            WebSocketInterceptor().install(app)
        app.include_router(router)
        async with lifespan(app):
            refused = await refusal(app, "/doors?number=s3cret")
        assert refused.code == 1008
        said = "the handshake of '/doors' is refused: 'query.number: int_parsing, query.token: missing'"
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [said]

    async def test_what_cannot_be_told_apart_is_refused_when_the_application_starts(self):
        router = telling()

        @router.receive(Posted)
        async def posted_too() -> None: ...

        with pytest.raises(RuntimeError, match="posted_too handle Posted"):
            async with serving(router):
                pass

    @pytest.mark.parametrize("installed", [False, True])
    @pytest.mark.parametrize("nested", [False, True])
    async def test_two_on_one_path_are_refused(self, installed: bool, nested: bool):
        one, other, between = telling(), WebSocketRouter("/{id}"), APIRouter()

        @other.on_fallback
        async def anything(connection: WebSocketConnection, raw: Any, error: InvalidMessage) -> None: ...

        app = FastAPI() if installed else create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
        if installed:
            WebSocketInterceptor().install(app)
        app.include_router(one, prefix="/ws/{name}")
        if nested:
            between.include_router(other, prefix="/ws")
            app.include_router(between)
        else:
            app.include_router(other, prefix="/ws")
        with pytest.raises(
            RuntimeError, match=r"claimed by both .*posted and .*anything: give one of them another path"
        ):
            async with lifespan(app):
                pass

    async def test_one_and_an_endpoint_on_one_path_are_refused(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None: ...

        app = create_http_server(Microservice(controllers=[Controller], interceptors=[WebSocketInterceptor()]))
        app.include_router(telling(), prefix="/ws")
        with pytest.raises(RuntimeError, match=r"claimed by both .*Controller\.serve and .*posted"):
            async with lifespan(app):
                pass

    async def test_several_on_several_paths_are_not(self):
        app = create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
        router = telling("one")
        for path in ("/one", "/one", "/too"):
            app.include_router(router, prefix=path)
        app.include_router(telling("other"), prefix="/other")
        async with lifespan(app):
            assert [await answer(app, path) for path in ("/one", "/too", "/other")] == ["one", "one", "other"]

    def test_mistakes_are_refused_where_they_are_written(self):
        router = WebSocketRouter()
        with pytest.raises(ConfigurationError, match="not async"):

            @router.receive(Posted)  # type: ignore[type-var]
            def posted() -> None: ...

        with pytest.raises(ConfigurationError, match="FastAPI would read 'other' from a body"):

            @router.receive(Posted)
            async def wrong(other: Told) -> None: ...

        with pytest.raises(ConfigurationError, match="discriminator"):
            WebSocketRouter(discriminator="a", dispatcher=_dispatch_nothing)


async def _dispatch_nothing(connection: WebSocketConnection, handlers: Any, raw: Any) -> None: ...
