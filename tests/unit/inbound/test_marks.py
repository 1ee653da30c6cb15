"""What a controller may write down on its methods, and what is refused in place of being passed over."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, WebSocket, WebSocketException

from jararaca_ws import (
    ConfigurationError,
    JararacaError,
    OnDisconnect,
    PermissionDenied,
    RateLimited,
    Receive,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketMessage,
    WebSocketRouter,
)
from jararaca_ws.testing import InLoopWebSocket, connect
from tests.unit.apps import application, end_of, running
from tests.unit.played import errors_in, until


class A(WebSocketMessage):
    MESSAGE_ID = "test_marks.a"


class B(WebSocketMessage):
    MESSAGE_ID = "test_marks.b"


class Endpoint:
    @WebSocketEndpoint("/ws")
    async def serve(self, connection: WebSocketConnection) -> None: ...


async def ask(socket: InLoopWebSocket, message: WebSocketMessage) -> Any:
    await socket.send_text(json.dumps({"MESSAGE_ID": message.MESSAGE_ID, "message": {}, "ref": "1"}))
    return (await socket.receive_json())["message"]


class TestMethods:
    @pytest.mark.parametrize("kind", [staticmethod, classmethod])
    @pytest.mark.parametrize("decorator", [Receive(A), OnDisconnect(), WebSocketEndpoint("/other")])
    def test_one_without_self_is_refused_whichever_decorator_is_outside(self, kind: Any, decorator: Any):
        async def method() -> None: ...

        with pytest.raises(
            ConfigurationError, match=rf"method is .* and a {kind.__name__}: leave @{kind.__name__} out"
        ):
            decorator(kind(method))
        controller = type("Controller", (Endpoint,), {"method": kind(decorator(method))})
        with pytest.raises(
            ConfigurationError, match=rf"method is .* and a {kind.__name__}: leave @{kind.__name__} out"
        ):
            application(controller)

    @pytest.mark.parametrize("decorator", [Receive(A), OnDisconnect(), WebSocketEndpoint("/other")])
    def test_an_override_that_has_lost_its_decorator_is_refused(self, decorator: Any):
        async def method(self: Any) -> None: ...

        async def override(self: Any) -> None: ...

        parent = type("Parent", (Endpoint,), {"method": decorator(method)})
        with pytest.raises(ConfigurationError, match=r"Child overrides Parent\.method.*method = None"):
            application(type("Child", (parent,), {"method": override}))
        application(type("Child", (parent,), {"method": decorator(override)}))
        application(type("Child", (parent,), {"method": None}))

    async def test_one_may_receive_several_classes(self):
        class Controller(Endpoint):
            @Receive(A)
            @Receive(B)
            async def either(self, message: A | B) -> str:
                return type(message).__name__

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            assert [await ask(socket, A()), await ask(socket, B())] == ["A", "B"]

    async def test_one_may_be_called_for_the_clients_of_several_endpoints(self):
        gone: list[str] = []

        class Controller:
            @WebSocketEndpoint("/one")
            async def one(self, connection: WebSocketConnection) -> None:
                gone.append("one")

            @WebSocketEndpoint("/two")
            async def two(self, connection: WebSocketConnection) -> None:
                gone.append("two")

            @OnDisconnect("one")
            @OnDisconnect("two")
            async def gone(self, connection: WebSocketConnection) -> None:
                gone.append(connection.websocket.url.path)

        async with running(Controller) as app:
            for path in ("/one", "/two"):
                await end_of(app, path)
            await until(lambda: len(gone) == 4)
        assert gone == ["one", "/one", "two", "/two"]

    def test_one_is_not_two_endpoints(self):
        with pytest.raises(ConfigurationError, match=r"serve is a @WebSocketEndpoint twice: write a method"):

            class Controller:
                @WebSocketEndpoint("/one")
                @WebSocketEndpoint("/two")
                async def serve(self, connection: WebSocketConnection) -> None: ...


class TestParameters:
    async def test_what_is_noted_beside_a_class_is_looked_through(self):
        def chosen() -> str:
            return "chosen"

        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(
                self, connection: Annotated[WebSocketConnection, "ours"], websocket: Annotated[WebSocket, "FastAPI's"]
            ) -> None:
                assert connection.websocket is websocket

            @Receive(A)
            async def a(
                self,
                message: Annotated[A, "a note"],
                connection: Annotated[WebSocketConnection, "ours"],
                websocket: Annotated[WebSocket, "FastAPI's"],
                word: Annotated[str, Depends(chosen)],
            ) -> list[Any]:
                return [type(message).__name__, connection.websocket is websocket, word]

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            assert await ask(socket, A()) == ["A", True, "chosen"]

    async def test_what_a_dependency_gives_is_its_own(self):
        def another() -> B:
            return B()

        class Controller(Endpoint):
            @Receive(A)
            async def a(self, message: A, other: Annotated[B, Depends(another)]) -> str:
                return type(other).__name__

            @Receive(B)
            async def b(self, other: Annotated[B, Depends(another)]) -> str:
                return type(other).__name__

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            assert [await ask(socket, A()), await ask(socket, B())] == ["B", "B"]

    def test_what_is_never_none_is_not_to_be_none(self):
        class Message(Endpoint):
            @Receive(A)
            async def a(self, message: A | None) -> None: ...

        class Connection(Endpoint):
            @Receive(A)
            async def a(self, connection: WebSocketConnection | None) -> None: ...

        class Serving:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: Annotated[WebSocketConnection | None, "ours"]) -> None: ...

        for controller, problem in (
            (Message, r"a: 'message' is never None: write message: A$"),
            (Connection, r"a: 'connection' is never None: write connection: WebSocketConnection$"),
            (Serving, r"serve: 'connection' is never None: write connection: WebSocketConnection$"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                application(controller)


class TestDispatchers:
    def test_what_cannot_be_awaited_or_called_is_refused_when_the_router_is_made(self):
        def sync(connection: Any, handlers: Any, raw: Any) -> None: ...

        async def short(connection: Any) -> None: ...

        for wrong, problem in ((sync, "no async function"), (3, "no async function"), (short, "take three")):
            with pytest.raises(ConfigurationError, match=problem):
                WebSocketRouter(dispatcher=wrong)  # type: ignore[arg-type]

    def test_whatever_is_async_will_do(self):
        async def long(more: str, connection: Any, handlers: Any, raw: Any) -> None: ...

        class Dispatching:
            async def __call__(self, connection: Any, handlers: Any, raw: Any) -> None: ...

        for dispatcher in (partial(long, "more"), Dispatching(), Dispatching().__call__):
            assert WebSocketRouter(dispatcher=dispatcher).routes


async def raising(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(fail(error))


GROUPS = [
    pytest.param([PermissionDenied("a")], "permission_denied", 4507, id="one"),
    pytest.param([PermissionDenied("a"), RateLimited()], "permission_denied", 4507, id="ours alone"),
    pytest.param([ExceptionGroup("", [PermissionDenied("a")])], "permission_denied", 4507, id="nested"),
    pytest.param([PermissionDenied("a"), ValueError()], "internal_error", 1011, id="a failure among them"),
    pytest.param([JararacaError()], "internal_error", 1011, id="a failure of ours"),
]


class TestGroups:
    @pytest.mark.parametrize(("errors", "code", "close_code"), GROUPS)
    async def test_a_group_of_what_concerns_the_client_tells_it(
        self, errors: list[Exception], code: str, close_code: int, caplog: pytest.LogCaptureFixture
    ):
        class Controller(Endpoint):
            @Receive(A, endpoint="serve")
            async def a(self) -> None:
                await raising(*errors)

            @WebSocketEndpoint("/failing")
            async def failing(self, connection: WebSocketConnection) -> None:
                await raising(*errors)

        async with running(Controller) as app:
            async with connect(app.asgi, "/ws") as socket:
                assert (await ask(socket, A()))["code"] == code
            assert (await end_of(app, "/failing")).code == close_code
        assert bool(errors_in(caplog)) == (close_code == 1011)

    async def test_a_close_in_a_group_closes(self):
        class Controller(Endpoint):
            @Receive(A)
            async def a(self) -> None:
                await raising(WebSocketException(4400, "enough"))

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await socket.send_text(json.dumps({"MESSAGE_ID": A.MESSAGE_ID, "message": {}}))
            closed = await socket.closed()
            assert (closed.code, closed.reason) == (4400, "enough")
