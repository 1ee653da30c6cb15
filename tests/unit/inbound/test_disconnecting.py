# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
from fastapi import Depends, WebSocketException

from jararaca_ws import (
    CloseCode,
    ConfigurationError,
    OnDisconnect,
    PermissionDenied,
    Receive,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    WebSocketSettings,
    use_ws_manager,
)
from jararaca_ws.testing import connect
from tests.unit.apps import end_of, running
from tests.unit.played import errors_in, until


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_disconnecting.posted"

    what: str = ""


def posted(what: str = "") -> str:
    return json.dumps({"MESSAGE_ID": Posted.MESSAGE_ID, "message": {"what": what}})


class Service:
    """Injected into each controller anew."""


class Log:
    def __init__(self) -> None:
        self.steps = []
        self.open = 0


def controller(log: Log, **options: Any) -> type:
    async def session() -> AsyncIterator[str]:
        log.open += 1
        try:
            yield "session"
        finally:
            log.open -= 1

    @RestController("/rooms")
    class Controller:
        def __init__(self, service: Service) -> None:
            self.service = service

        @WebSocketEndpoint("/{room}", **options)
        async def serve(self, connection: WebSocketConnection, room: str) -> None:
            if room == "secret":
                raise PermissionDenied(room)
            await connection.join(room)
            if room == "fails":
                raise RuntimeError("on purpose")

        @Receive(Posted)
        async def posted(self, message: Posted, connection: WebSocketConnection) -> None:
            if message.what == "hangs":
                await asyncio.Event().wait()
            if message.what == "closes":
                await connection.close(4100, "enough")
            if message.what == "raises":
                raise WebSocketException(4100, "enough")
            await asyncio.sleep(0.01)
            log.steps.append(message.what)

        @OnDisconnect()
        async def gone(
            self,
            connection: WebSocketConnection,
            room: str,
            code: int,
            reason: str,
            session: Annotated[str, Depends(session)],
        ) -> None:
            assert session == "session"
            assert isinstance(self.service, Service)
            assert not connection.alive
            assert connection.rooms == ()
            assert connection not in use_ws_manager().connections
            log.steps.append((room, code, reason))
            await Posted(what="gone").send("watchers")

    return Controller


@pytest.mark.parametrize("closed_by", ["client", "handler", "exception", "shutdown"])
async def test_it_is_called_once_with_the_end(closed_by: str, caplog: pytest.LogCaptureFixture):
    log = Log()
    async with running(controller(log)) as app:
        async with connect(app.asgi, "/rooms/a") as socket:
            if closed_by == "client":
                await socket.close(4100, "enough")
            elif closed_by == "shutdown":
                for one in app.manager.connections:
                    one.begin_shutdown()  # as a drain does
            else:
                await socket.send_text(posted("closes" if closed_by == "handler" else "raises"))
            await until(lambda: log.steps)
        assert log.open == 0
    if closed_by == "shutdown":
        assert log.steps == [("a", 1012, "service restart")]
    elif closed_by == "handler":
        assert [step for step in log.steps if step != "closes"] == [("a", 4100, "enough")]
    else:
        assert log.steps == [("a", 4100, "enough")]
    assert not errors_in(caplog)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_it_comes_after_the_last_message(concurrency: int):
    log = Log()
    async with running(controller(log, concurrency=concurrency)) as app, connect(app.asgi, "/rooms/a") as socket:
        for number in range(5):
            await socket.send_text(posted(str(number)))
        await socket.close(4100)
        await until(lambda: len(log.steps) == 6)
    assert log.steps[-1] == ("a", 4100, "")
    assert sorted(log.steps[:-1]) == ["0", "1", "2", "3", "4"]


async def test_it_is_called_where_a_handler_hangs():
    log = Log()
    settings = WebSocketSettings(handler_grace=timedelta(seconds=0.05))
    interceptor = WebSocketInterceptor(settings=settings)
    async with running(controller(log), interceptor=interceptor) as app, connect(app.asgi, "/rooms/a") as socket:
        await socket.send_text(posted("hangs"))
        await socket.close(4100)
        await until(lambda: log.steps)
    assert log.steps == [("a", 4100, "")]


async def test_it_is_called_where_the_endpoint_fails_after_it_has_accepted():
    log = Log()
    async with running(controller(log)) as app:
        assert (await end_of(app, "/rooms/fails")).code == CloseCode.INTERNAL_ERROR
        await until(lambda: log.steps)
    assert [step[1] for step in log.steps] == [CloseCode.INTERNAL_ERROR]


async def test_it_is_called_where_the_server_cancels_us():
    log = Log()
    async with running(controller(log)) as app, connect(app.asgi, "/rooms/a"):
        (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "in-loop WebSocket /rooms/a"]
        task.cancel()
        await until(task.done)
    assert log.steps == [("a", 1012, "")]


@pytest.mark.parametrize("path", ["/rooms/secret"])
async def test_who_was_refused_has_not_gone(path: str):
    log = Log()
    async with running(controller(log, accept=False)) as app:
        assert (await end_of(app, path)).code == CloseCode.PERMISSION_DENIED
    assert log.steps == []


async def test_it_is_called_for_an_endpoint_that_reads_by_itself():
    ends: list[int] = []

    class Controller:
        @WebSocketEndpoint("/ws")
        async def serve(self, connection: WebSocketConnection) -> None:
            await anext(aiter(connection.iter_text()))

        @OnDisconnect("serve")
        async def gone(self, code: int) -> None:
            ends.append(code)

    async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
        await socket.send_text("enough")
        assert (await socket.closed()).code == 1000
        await until(lambda: ends)
    assert ends == [1000]


async def test_what_it_raises_is_logged_once_and_what_hangs_is_ended(caplog: pytest.LogCaptureFixture):
    ended: list[str] = []

    class Controller:
        @WebSocketEndpoint("/{how}")
        async def serve(self, connection: WebSocketConnection) -> None: ...

        @OnDisconnect()
        async def gone(self, how: str) -> None:
            if how == "raises":
                raise RuntimeError("on purpose")
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(how)

    settings = WebSocketSettings(handler_grace=timedelta(seconds=0.02))
    async with running(Controller, interceptor=WebSocketInterceptor(settings=settings)) as app:
        for how in ("raises", "hangs"):
            async with connect(app.asgi, f"/{how}"):
                pass
    assert ended == ["hangs"]
    assert len(errors_in(caplog)) == 2


async def test_each_endpoint_has_its_own_and_methods_are_inherited():
    ends: list[str] = []

    class Base:
        @WebSocketEndpoint("/a")
        async def a(self, connection: WebSocketConnection) -> None: ...

        @OnDisconnect("a")
        async def gone_from_a(self) -> None:
            ends.append("a")

    class Controller(Base):
        @WebSocketEndpoint("/b")
        async def b(self, connection: WebSocketConnection) -> None: ...

        @OnDisconnect("b")
        async def gone_from_b(self) -> None:
            ends.append("b")

    async with running(Controller) as app:
        for path in ("/b", "/a"):
            async with connect(app.asgi, path):
                pass
    assert ends == ["b", "a"]


async def test_a_router_s_has_parameters_as_well():
    ends: list[Any] = []
    router = WebSocketRouter("/{room}")

    @router.on_disconnect
    async def gone(room: str, reason: str, code: int) -> None:
        ends.append((room, code, reason))

    async with running() as app:
        app.asgi.include_router(router, prefix="/ws")
        async with connect(app.asgi, "/ws/a") as socket:
            await socket.close(4100, "enough")
    assert ends == [("a", 4100, "enough")]


class TestMistakes:
    def test_without_parentheses(self):
        with pytest.raises(ConfigurationError, match=r"write @OnDisconnect\(\)"):
            OnDisconnect(lambda: None)  # type: ignore[arg-type]

    def test_not_async(self):
        def gone(self: Any) -> None: ...

        with pytest.raises(ConfigurationError, match="not async"):
            OnDisconnect()(gone)  # type: ignore[type-var]

    @pytest.mark.parametrize(
        ("names", "match"),
        [
            (["gone"], "several endpoints"),
            (["a", "a"], "leave one of them out"),
            (["c"], "no @WebSocketEndpoint 'c'"),
        ],
    )
    async def test_which_endpoint_is_not_clear(self, names: list[str], match: str):
        class Controller:
            @WebSocketEndpoint("/a")
            async def a(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint("/b")
            async def b(self, connection: WebSocketConnection) -> None: ...

        for number, name in enumerate(names):

            async def gone(self: Any) -> None: ...

            gone.__name__ = gone.__qualname__ = f"gone{number}"
            setattr(Controller, f"gone{number}", OnDisconnect(None if name == "gone" else name)(gone))
        with pytest.raises(ConfigurationError, match=match):
            async with running(Controller):
                pass
