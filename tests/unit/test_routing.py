# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, Query, WebSocket, WebSocketException
from starlette.websockets import WebSocketState

from jararaca_ws.context import use_ws_manager
from jararaca_ws.errors import ConfigurationError, DuplicateEndpoint
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import connect
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.apps import application, end_of, running
from tests.unit.played import errors_in, turns, until


class Told(WebSocketMessage):
    MESSAGE_ID = "test_routing.told"

    what: Any = None


async def told(socket: Any) -> Any:
    return (await socket.receive_json())["message"]["what"]


class TestParameters:
    async def test_path_query_header_and_dependencies_work_as_in_fastapi(self):
        steps: list[str] = []

        async def session(x_user: Annotated[str, Header()]) -> AsyncIterator[str]:
            steps.append("opened")
            yield f"session of {x_user}"
            steps.append("closed")

        @RestController("/api")
        class Controller:
            @WebSocketEndpoint("/ws/{room}/{n}")
            async def serve(
                self,
                n: int,
                connection: WebSocketConnection,
                room: str,
                session: Annotated[str, Depends(session)],
                q: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
                limit: int = 5,
            ) -> None:
                steps.append("handled")
                await connection.send(Told(what=[n, room, session, q, limit]))

        path = "/api/ws/a%2Cb/7?q=x&q=y"
        async with running(Controller) as app, connect(app.asgi, path, headers={"X-User": "ann"}) as socket:
            assert await told(socket) == [7, "a,b", "session of ann", ["x", "y"], 5]
            assert (await socket.closed()).code == 1000
        assert steps == ["opened", "handled", "closed"]

    async def test_both_kinds_of_socket_may_be_asked_for_and_are_the_same_one(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, raw: WebSocket, connection: WebSocketConnection) -> None:
                assert connection.websocket is raw
                assert raw.application_state is WebSocketState.CONNECTED
                await raw.send_text("raw")
                await connection.send(Told(what="typed"))
                assert await raw.receive_text() == "hello"

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await socket.send_text("hello")
            assert await socket.receive() == "raw"
            assert await told(socket) == "typed"
            assert (await socket.closed()).code == 1000

    async def test_neither_kind_of_socket_need_be_asked_for(self):
        class Controller:
            @WebSocketEndpoint("/ws/{room}")
            async def serve(self, room: str) -> None:
                assert room == "a"

        async with running(Controller) as app:
            assert (await end_of(app, "/ws/a")).code == 1000

    async def test_a_parameter_that_does_not_fit_refuses_the_handshake(self, caplog: pytest.LogCaptureFixture):
        class Controller:
            @WebSocketEndpoint("/ws/{n}")
            async def serve(self, n: int, connection: WebSocketConnection) -> None:
                pytest.fail("it ran")

        async with running(Controller) as app:
            end = await end_of(app, "/ws/hunter2")
            assert end.code == 1008
            assert "hunter2" not in str(end.reason)
            assert len(app.manager.connections) == 0
        assert not errors_in(caplog)

    async def test_each_socket_has_a_controller_of_its_own(self):
        built: list[Any] = []

        class Controller:
            def __init__(self) -> None:
                built.append(self)

            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.send(Told(what=built.index(self)))

        async with running(Controller) as app:
            assert built == []
            for n in range(2):
                async with connect(app.asgi, "/ws") as socket:
                    assert await told(socket) == n

    async def test_b40_a_room_from_the_path_is_checked_like_any_other(self, caplog: pytest.LogCaptureFixture):
        class Controller:
            @WebSocketEndpoint("/ws/{room}")
            async def serve(self, connection: WebSocketConnection, room: str) -> None:
                await connection.join(room)
                await connection.send(Told(what=list(connection.rooms)))

        async with running(Controller) as app:
            async with connect(app.asgi, "/ws/a%2Cb%2A") as socket:
                assert await told(socket) == ["a,b*"]
            for bad in ("%00", "a%0D%0Ab", "e%CC%81", "x" * 256):
                assert (await end_of(app, f"/ws/{bad}")).code == 4501
            assert app.manager.rooms == ()
        assert not errors_in(caplog), "it is the client's mistake"
        assert len(caplog.records) == 4
        assert all(record.getMessage().isprintable() for record in caplog.records)


class TestPaths:
    async def test_a_controller_without_a_path_serves_at_the_root(self):
        class Controller:
            @WebSocketEndpoint()
            async def serve(self, connection: WebSocketConnection) -> None: ...

        async with running(Controller) as app, connect(app.asgi, "/") as socket:
            assert (await socket.closed()).code == 1000

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("/ws", "/ws"),
            ("/ws/{a}", "/ws/{b}"),
            ("/ws/{a:path}", "/ws/{b:path}"),
            ("/ws/{a}/x/{b}", "/ws/{c}/x/{d}"),
            ("/ws/{a}", "/ws/{a:str}"),
            ("ws", "/ws"),
        ],
    )
    def test_two_endpoints_on_one_path_are_refused_with_both_names(self, first: str, second: str):
        class One:
            @WebSocketEndpoint(first)
            async def serve_one(self, connection: WebSocketConnection) -> None: ...

        class Two:
            @WebSocketEndpoint(second)
            async def serve_two(self, connection: WebSocketConnection) -> None: ...

        with pytest.raises(DuplicateEndpoint) as caught:
            application(One, Two)
        assert "One.serve_one" in str(caught.value)
        assert "Two.serve_two" in str(caught.value)

    def test_two_endpoints_of_one_controller_are_refused_too(self):
        class Controller:
            @WebSocketEndpoint("/ws/{a}")
            async def serve_one(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint("/ws/{b}")
            async def serve_two(self, connection: WebSocketConnection) -> None: ...

        with pytest.raises(DuplicateEndpoint, match=r"serve_one and .*serve_two"):
            application(Controller)

    @pytest.mark.parametrize(
        ("first", "second"), [("/ws/{a}", "/ws/{a:int}"), ("/ws/a", "/ws/{a}"), ("/ws", "/ws/"), ("/a", "/b")]
    )
    def test_paths_that_differ_are_no_duplicates(self, first: str, second: str):
        class Controller:
            @WebSocketEndpoint(first)
            async def serve_one(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint(second)
            async def serve_two(self, connection: WebSocketConnection) -> None: ...

        assert application(Controller).routes

    async def test_endpoints_are_inherited_but_for_those_that_are_none(self):
        class Parent:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.send(Told(what=type(self).__name__))

            @WebSocketEndpoint("/gone")
            async def gone(self, connection: WebSocketConnection) -> None: ...

        class Child(Parent):
            gone = None  # type: ignore[assignment]

        async with running(Child) as app:
            async with connect(app.asgi, "/ws") as socket:
                assert await told(socket) == "Child"
            assert (await end_of(app, "/gone")).code == 1000, "starlette's way to say 404"

    def test_the_route_has_a_name(self):
        class Controller:
            @WebSocketEndpoint("/ws/{room}", name="chat")
            async def serve(self, connection: WebSocketConnection, room: str) -> None: ...

            @WebSocketEndpoint("/other")
            async def other(self, connection: WebSocketConnection) -> None: ...

        app = application(Controller)
        assert app.url_path_for("chat", room="a") == "/ws/a"
        assert app.url_path_for("other") == "/other"


class TestMistakes:
    def test_an_endpoint_that_is_not_async_is_refused_where_it_is_written(self):
        with pytest.raises(ConfigurationError, match=r"serve is a @WebSocketEndpoint but not async.*async def"):

            class Controller:
                @WebSocketEndpoint("/ws")
                def serve(self, connection: WebSocketConnection) -> None: ...

    def test_the_decorator_without_a_path_is_refused_where_it_is_written(self):
        with pytest.raises(ConfigurationError, match="without a path"):

            class Controller:
                @WebSocketEndpoint  # type: ignore[arg-type]
                async def serve(self, connection: WebSocketConnection) -> None: ...

    def test_a_path_that_is_none_is_refused_when_the_application_is_made(self):
        class Controller:
            @WebSocketEndpoint("/ws/{a}/{a}")
            async def serve(self, connection: WebSocketConnection, a: str) -> None: ...

        with pytest.raises(ConfigurationError, match=r"/ws/\{a\}/\{a\}"):
            application(Controller)

    def test_an_annotation_that_cannot_be_read_is_refused_with_its_name(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection, user: "NotImported") -> None: ...  # type: ignore[name-defined] # noqa: F821

        with pytest.raises(ConfigurationError, match=r"Controller\.serve .*'NotImported'"):
            application(Controller)


class TestErrors:
    """What a handler or a dependency raises, before and after the accept."""

    @staticmethod
    def controller(error: Exception, *, accept: bool, in_dependency: bool = False) -> type:
        def dependency() -> None:
            if in_dependency:
                raise error

        class Controller:
            @WebSocketEndpoint("/ws", accept=accept, dependencies=[Depends(dependency)])
            async def serve(self, connection: WebSocketConnection) -> None:
                raise error

        return Controller

    @pytest.mark.parametrize("in_dependency", [False, True], ids=["handler", "dependency"])
    @pytest.mark.parametrize(
        ("error", "code", "status"),
        [
            (WebSocketException(code=4507, reason="not you"), 4507, None),
            (HTTPException(401, "not you"), 1006, 401),
        ],
        ids=["WebSocketException", "HTTPException"],
    )
    async def test_before_the_accept_it_refuses_the_handshake(
        self, error: Exception, code: int, status: int | None, in_dependency: bool, caplog: pytest.LogCaptureFixture
    ):
        async with running(self.controller(error, accept=False, in_dependency=in_dependency)) as app:
            end = await end_of(app, "/ws")
            assert (end.code, end.status) == (code, status)
            assert len(app.manager.connections) == 0
        assert not errors_in(caplog)

    async def test_a_websocket_exception_after_the_accept_closes_with_its_code(self, caplog: pytest.LogCaptureFixture):
        error = WebSocketException(code=4507, reason="not you")
        async with running(self.controller(error, accept=True)) as app, connect(app.asgi, "/ws") as socket:
            closed = await socket.closed()
            assert (closed.code, closed.reason) == (4507, "not you")
        assert not errors_in(caplog)

    async def test_an_http_exception_after_the_accept_is_a_failure(self, caplog: pytest.LogCaptureFixture):
        error = HTTPException(401, "not you")
        async with running(self.controller(error, accept=True)) as app, connect(app.asgi, "/ws") as socket:
            assert (await socket.closed()).code == 1011
        assert len(errors_in(caplog)) == 1

    @pytest.mark.parametrize(("accept", "code", "status"), [(True, 1011, None), (False, 1006, 500)])
    async def test_anything_else_is_a_failure_logged_once(
        self, accept: bool, code: int, status: int | None, caplog: pytest.LogCaptureFixture
    ):
        async with running(self.controller(RuntimeError("the secret inside"), accept=accept)) as app:
            end = await end_of(app, "/ws")
            assert (end.code, end.status) == (code, status)
            assert "secret" not in end.reason
        assert len(errors_in(caplog)) == 1
        assert [record.name for record in errors_in(caplog)] == ["jararaca_ws"]

    async def test_a_controller_that_cannot_be_built_is_a_failure_logged_once(self, caplog: pytest.LogCaptureFixture):
        class Controller:
            def __init__(self) -> None:
                raise RuntimeError("no database")

            @WebSocketEndpoint("/ws", accept=False)
            async def serve(self, connection: WebSocketConnection) -> None: ...

        async with running(Controller) as app:
            assert (await end_of(app, "/ws")).status == 500
            assert len(app.manager.connections) == 0
        assert len(errors_in(caplog)) == 1


class TestSeedStyle:
    """The endpoint of the seed document, word for word."""

    @staticmethod
    def controller(ends: list[BaseException | None]) -> type:
        @RestController("/chat")
        class ChatController:
            @WebSocketEndpoint("/ws/{room_id}")
            async def chat_endpoint(self, websocket: WebSocket, room_id: str):
                await websocket.accept()
                ws_manager = use_ws_manager()
                await ws_manager.add_websocket(websocket)
                await ws_manager.join([room_id], websocket)
                try:
                    while True:
                        await websocket.receive()
                except BaseException as error:
                    ends.append(error)
                    await ws_manager.remove_websocket(websocket)
                    await ws_manager.remove_websocket(websocket)

        return ChatController

    async def test_it_gets_the_rooms_messages_and_ends_when_the_client_goes(self, caplog: pytest.LogCaptureFixture):
        ends: list[BaseException | None] = []
        async with running(self.controller(ends)) as app:
            async with connect(app.asgi, "/chat/ws/a") as socket, connect(app.asgi, "/chat/ws/b") as other:
                await until(lambda: len(app.manager.rooms) == 2)
                await socket.send_text("ignored")
                await app.manager.send(["a"], Told(what="hi"))
                assert await told(socket) == "hi"
                await other.close()
                await until(lambda: len(ends) == 1)
                assert app.manager.rooms == ("a",)
            await until(lambda: len(ends) == 2)
            assert app.manager.rooms == ()
            assert len(app.manager.connections) == 0
        assert all(isinstance(end, RuntimeError) for end in ends), "starlette: receive() after the disconnect"
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    async def test_shutdown_ends_it(self):
        ends: list[BaseException | None] = []
        async with running(self.controller(ends)) as app, connect(app.asgi, "/chat/ws/a") as socket:
            await until(lambda: app.manager.rooms)
            await app.manager.stop()
            assert (await socket.closed()).code == 1012
            await until(lambda: ends)

    async def test_iterating_over_texts_and_returning_closes_with_1000(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, websocket: WebSocket) -> None:
                await websocket.accept()
                async for text in websocket.iter_text():
                    await websocket.send_text(text.upper())
                    if text == "bye":
                        return

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            for text in ("a", "bye"):
                await socket.send_text(text)
                assert await socket.receive() == text.upper()
            assert (await socket.closed()).code == 1000

    async def test_a_handler_that_accepts_twice_fails_clearly(self, caplog: pytest.LogCaptureFixture):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, websocket: WebSocket) -> None:
                await websocket.accept()
                await websocket.accept()

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            assert (await socket.closed()).code == 1011
        assert len(errors_in(caplog)) == 1


class TestAccepting:
    async def test_with_accept_false_nothing_that_is_sent_after_the_join_is_missed(self):
        joined, go = asyncio.Event(), asyncio.Event()

        class Controller:
            @WebSocketEndpoint("/ws", accept=False)
            async def serve(self, connection: WebSocketConnection) -> None:
                await connection.join("a")
                joined.set()
                await go.wait()
                await connection.accept()
                await connection.accept()
                await connection.closed.wait()

        async def send_meanwhile(app: Any) -> None:
            await joined.wait()
            for n in range(3):
                await app.manager.send(["a"], Told(what=n))
            await turns()
            go.set()

        async with running(Controller) as app, asyncio.TaskGroup() as tasks:
            tasks.create_task(send_meanwhile(app))
            async with connect(app.asgi, "/ws") as socket:
                assert [await told(socket) for _ in range(3)] == [0, 1, 2]

    async def test_the_subprotocol_is_agreed_to_where_it_is_offered(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                async for message in connection:
                    await connection.send(message)

        async with running(Controller) as app:
            async with connect(app.asgi, "/ws", subprotocols=["x", SUBPROTOCOL]) as socket:
                assert socket.subprotocol == SUBPROTOCOL
                await socket.send_text("null")
                assert (await socket.receive_json())["MESSAGE_ID"] == "jararaca.error"
            async with connect(app.asgi, "/ws", subprotocols=["x"]) as socket:
                assert socket.subprotocol is None
                await socket.send_text("null")
                await socket.send_text(json.dumps({"MESSAGE_ID": "test_routing.told", "message": {"what": 1}}))
                assert await told(socket) == 1
