# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import HTTPException, WebSocketException

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.context import provide_ws_manager, use_ws_manager
from jararaca_ws.errors import (
    BackendUnavailable,
    BadRoom,
    DuplicateEndpoint,
    MessageNotEncodable,
    NotBound,
    UnitOfWorkOver,
)
from jararaca_ws.interceptors.base import AppTransactionContext, MessageBusTransactionData, WebSocketTransactionData
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Get, Post, RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import connect, lifespan
from tests.unit.apps import App, application, end_of, running
from tests.unit.played import errors_in, turns, until


class Told(WebSocketMessage):
    MESSAGE_ID = "test_websocket_interceptor.told"

    what: Any = None


async def told(socket: Any) -> Any:
    return (await socket.receive_json())["message"]["what"]


class Listening:
    """Every test listens in room `a` through this one."""

    @WebSocketEndpoint("/listen")
    async def listen(self, connection: WebSocketConnection) -> None:
        await connection.join("a")
        await connection.closed.wait()


@asynccontextmanager
async def listening(*controllers: type, **options: Any) -> AsyncIterator[tuple[App, Any]]:
    async with running(Listening, *controllers, **options) as app, connect(app.asgi, "/listen") as socket:
        await until(lambda: app.manager.rooms)
        yield app, socket


class Recording(MemoryWebSocketConnectionBackend):
    """Notes each call, and refuses on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.sends: list[list[str]] = []
        self.down = False

    async def send(self, rooms: list[str], message: bytes) -> None:
        if self.down:
            raise BackendUnavailable("it is down")
        self.sends.append(rooms)
        await super().send(rooms, message)


class TestStaging:
    async def test_sends_of_a_request_leave_in_order_when_it_succeeds_and_not_before(self):
        backend = Recording()

        class Controller:
            @WebSocketEndpoint("/unused")
            async def unused(self, connection: WebSocketConnection) -> None: ...

            @staticmethod
            async def deeper() -> None:
                await Told(what="from a task").send("a")

        @RestController()
        class Rest:
            @Post("/three")
            async def three(self) -> int:
                message = Told(what=1)
                await message.send("a")
                message.what = "changed after it was sent"
                await Told(what=2).send("a", "b", "a")
                await asyncio.create_task(Controller.deeper())
                await turns()
                return len(backend.sends)

        async with listening(Controller, Rest, interceptor=WebSocketInterceptor(backend)) as (app, socket):
            response = await app.http.post("/three")
            assert (response.status_code, response.json()) == (200, 0)
            assert backend.sends == [["a"], ["a", "b"], ["a"]]
            assert [await told(socket) for _ in range(3)] == [1, 2, "from a task"]

    @pytest.mark.parametrize(("error", "status"), [(HTTPException(409, "no"), 409), (RuntimeError("no"), 500)])
    async def test_a_request_that_fails_sends_nothing(self, error: Exception, status: int):
        backend = Recording()

        @RestController()
        class Rest:
            @Post("/fail")
            async def fail(self) -> None:
                await Told(what="never").send("a")
                raise error

            @Post("/invalid")
            async def invalid(self) -> int:
                await Told(what="never").send("a")
                return "not a number"  # type: ignore[return-value]

        async with listening(Rest, interceptor=WebSocketInterceptor(backend)) as (app, _):
            assert (await app.http.post("/fail")).status_code == status
            assert (await app.http.post("/invalid")).status_code == 500
            assert backend.sends == []

    async def test_an_inner_interceptor_that_fails_after_the_handler_fails_the_sends_too(self):
        backend = Recording()

        class Database:
            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                yield
                if app_context.transaction_data.context_type == "http":
                    raise RuntimeError("the commit failed")

        @RestController()
        class Rest:
            @Post("/send")
            async def send(self) -> None:
                await Told(what="never").send("a")

        interceptor = WebSocketInterceptor(backend)
        async with running(Rest, interceptor=interceptor, others=[Database()]) as app:
            assert (await app.http.post("/send")).status_code == 500
            assert backend.sends == []

    async def test_concurrent_requests_never_see_each_others_sends(self):
        arrived: dict[str, asyncio.Event] = {"good": asyncio.Event(), "bad": asyncio.Event()}

        @RestController()
        class Rest:
            @Post("/{kind}")
            async def send(self, kind: str) -> None:
                for n in range(10):
                    await Told(what=f"{kind} {n}").send("a")
                    arrived[kind].set()
                    await asyncio.gather(*(event.wait() for event in arrived.values()))
                    await asyncio.sleep(0)
                if kind == "bad":
                    raise HTTPException(400)

        async with listening(Rest) as (app, socket):
            responses = await asyncio.gather(app.http.post("/good"), app.http.post("/bad"))
            assert [response.status_code for response in responses] == [200, 400]
            await app.manager.send(["a"], Told(what="the end"))
            received = [await told(socket) for _ in range(11)]
            assert received == [f"good {n}" for n in range(10)] + ["the end"]

    async def test_a_flush_that_fails_is_answered_with_503_and_a_reason(self):
        backend = Recording()

        @RestController()
        class Rest:
            @Post("/send")
            async def send(self) -> str:
                await Told().send("a")
                return "sent"

            @Get("/quiet")
            async def quiet(self) -> str:
                return "nothing to send"

        async with running(Rest, interceptor=WebSocketInterceptor(backend)) as app:
            backend.down = True
            response = await app.http.post("/send")
            assert response.status_code == 503
            assert "WebSocket backend is unavailable" in response.json()["detail"]
            assert "retry-after" in response.headers
            assert (await app.http.get("/quiet")).status_code == 200
            backend.down = False
            assert (await app.http.post("/send")).status_code == 200

    @pytest.mark.parametrize(
        ("rooms", "message", "error"),
        [
            (["bad\n"], Told(), BadRoom),
            ([], Told(), BadRoom),
            (["a"], Told(what=object()), MessageNotEncodable),
            (["a"], Told(what="x" * 2_000_000), MessageNotEncodable),
        ],
        ids=["bad room", "no room", "not encodable", "too large"],
    )
    async def test_a_bad_send_fails_where_it_is_written(self, rooms: list[str], message: Told, error: type[Exception]):
        backend = Recording()

        @RestController()
        class Rest:
            @Post("/send")
            async def send(self) -> str:
                with pytest.raises(error):
                    await message.send(*rooms)
                return "it was told at once"

        async with running(Rest, interceptor=WebSocketInterceptor(backend)) as app:
            assert (await app.http.post("/send")).json() == "it was told at once"
            assert backend.sends == []

    async def test_send_now_and_the_manager_do_not_wait(self):
        backend = Recording()

        @RestController()
        class Rest:
            @Post("/send")
            async def send(self) -> None:
                await Told().send("staged")
                await Told().send_now("now")
                await use_ws_manager().send(["manager"], Told())
                assert backend.sends == [["now"], ["manager"]]
                raise HTTPException(400)

        async with running(Rest, interceptor=WebSocketInterceptor(backend)) as app:
            assert (await app.http.post("/send")).status_code == 400
            assert backend.sends == [["now"], ["manager"]]

    @pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
    async def test_a_task_that_outlives_its_request_is_told_and_send_now_works_there(self, fails: bool):
        tasks: list[asyncio.Task[str]] = []
        over = asyncio.Event()

        async def outliving() -> str:
            await over.wait()
            with pytest.raises(UnitOfWorkOver) as caught:
                await Told(what="lost?").send("a")
            await Told(what="now").send_now("a")
            return str(caught.value)

        @RestController()
        class Rest:
            @Post("/start")
            async def start(self) -> None:
                tasks.append(asyncio.create_task(outliving()))
                if fails:
                    raise HTTPException(400)

        async with listening(Rest) as (app, socket):
            assert (await app.http.post("/start")).status_code == (400 if fails else 200)
            over.set()
            assert "await message.send_now(...)" in await tasks[0]
            assert await told(socket) == "now"

    async def test_in_a_message_bus_handler_sends_are_staged(self):
        backend = Recording()
        interceptor = WebSocketInterceptor(backend)
        data = MessageBusTransactionData(topic="t", message=None, message_id="1", attempt=1)
        context = AppTransactionContext(transaction_data=data, controller=object, handler=turns)
        async with lifespan(application(interceptor=interceptor)):
            with suppress(KeyError):
                async with interceptor.intercept(context):
                    await Told().send("a")
                    raise KeyError
            assert backend.sends == []
            async with interceptor.intercept(context):
                await Told().send("b")
                assert backend.sends == []
            assert backend.sends == [["b"]]


class TestContext:
    async def test_outside_of_a_unit_of_work_nothing_is_bound(self):
        async with running(Listening):
            with pytest.raises(NotBound):
                use_ws_manager()

    async def test_a_script_binds_the_manager_itself(self):
        async with listening() as (app, socket):
            with provide_ws_manager(app.manager):
                await Told(what="from a script").send("a")
            assert await told(socket) == "from a script"

    async def test_in_a_websocket_handler_sends_are_immediate_and_tasks_see_the_manager(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                await Told(what=1).send("a")
                await asyncio.create_task(Told(what=2).send("a"))
                await use_ws_manager().broadcast(Told(what=3))
                await connection.closed.wait()

        async with listening(Controller) as (app, socket), connect(app.asgi, "/ws"):
            assert [await told(socket) for _ in range(3)] == [1, 2, 3]

    async def test_interceptors_go_around_the_whole_websocket(self):
        steps: list[str] = []

        class Steps:
            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                assert app_context.controller is Controller
                assert app_context.handler is Controller.serve
                steps.append(f"+{app_context.transaction_data.context_type}")
                try:
                    yield
                finally:
                    steps.append("-")

        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                steps.append("handler")
                await connection.closed.wait()

        async with running(Controller, others=[Steps()]) as app:
            async with connect(app.asgi, "/ws"):
                await until(lambda: "handler" in steps)
            assert steps == ["+websocket", "handler", "-"]

    async def test_an_interceptor_refuses_a_websocket_as_a_handler_does(self, caplog: pytest.LogCaptureFixture):
        class Guard:
            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                data = app_context.transaction_data
                assert isinstance(data, WebSocketTransactionData)
                raise WebSocketException(4507, "not you")
                yield

        async with running(Listening, others=[Guard()]) as app:
            end = await end_of(app, "/listen")
            assert (end.code, end.reason) == (4507, "not you")
            assert app.manager.rooms == ()
        assert not errors_in(caplog)


class TestWiring:
    def test_two_endpoints_on_one_path_are_refused_when_the_application_is_made(self):
        class Other:
            @WebSocketEndpoint("/listen")
            async def other(self, connection: WebSocketConnection) -> None: ...

        with pytest.raises(DuplicateEndpoint, match=r"Listening\.listen and .*Other\.other"):
            application(Listening, Other)

    async def test_the_path_of_the_controller_is_joined(self):
        @RestController("/api/{tenant}/")
        class Controller:
            @WebSocketEndpoint("ws")
            async def serve(self, connection: WebSocketConnection, tenant: str) -> None:
                await connection.send(Told(what=tenant))

        async with running(Controller) as app, connect(app.asgi, "/api/acme/ws") as socket:
            assert await told(socket) == "acme"

    async def test_settings_reach_every_connection(self):
        settings = WebSocketSettings(max_queue_bytes=12345)
        seen: list[WebSocketSettings] = []

        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                seen.append(connection.settings)

        interceptor = WebSocketInterceptor(settings=settings)
        async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
            await socket.closed()
        assert seen == [settings]

    async def test_stopping_the_application_closes_its_sockets_and_leaves_nothing(self):
        before = asyncio.all_tasks()
        app = application(Listening)
        async with lifespan(app):
            opened = connect(app, "/listen")
            socket = await opened.__aenter__()
        assert (await socket.closed()).code == 1012
        await opened.__aexit__(None, None, None)
        assert asyncio.all_tasks() == before

    async def test_many_sockets_that_come_and_go_leave_nothing(self):
        def alive() -> set[int]:
            gc.collect()
            return {id(one) for one in gc.get_objects() if isinstance(one, WebSocketConnection)}

        # What tests before this one left, in tracebacks that pytest keeps.
        before = alive()
        async with running(Listening) as app:

            async def come_and_go(n: int) -> None:
                async with connect(app.asgi, "/listen") as socket:
                    if n % 3 == 0:
                        socket.stall()
                    if n % 2:
                        await socket.close(1001)

            for _ in range(5):
                await asyncio.gather(*(come_and_go(n) for n in range(30)))
            assert (app.manager.rooms, len(app.manager.connections)) == ((), 0)
            assert alive() <= before, "closed connections are kept in memory"


async def test_while_it_drains_new_sockets_are_refused():
    async with listening() as (app, _):
        app.manager.draining = True
        assert (await end_of(app, "/listen")).status == 503
        assert app.manager.rooms, "those that are open have their turn"
