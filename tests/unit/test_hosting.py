# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.context import use_ws_manager
from jararaca_ws.errors import BackendUnavailable, ConfigurationError, NotBound, Unavailable, UnitOfWorkOver
from jararaca_ws.hosting import current_connection
from jararaca_ws.inbound.hosts import RUNTIME_KEY
from jararaca_ws.inbound.websocket_router import WebSocketRouter
from jararaca_ws.interceptors.base import AppTransactionContext, WebSocketTransactionData
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, create_http_server
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect, lifespan
from tests.unit.apps import App, end_of
from tests.unit.played import errors_in, until


class Told(WebSocketMessage):
    MESSAGE_ID = "test_hosting.told"

    what: Any = None


class Recording(MemoryWebSocketConnectionBackend):
    """Notes what is sent, and refuses on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    async def send(self, rooms: list[str], message: bytes) -> None:
        if self.down:
            raise BackendUnavailable("it is down")
        await super().send(rooms, message)


@asynccontextmanager
async def hosted(app: FastAPI, backend: MemoryWebSocketConnectionBackend | None = None) -> AsyncIterator[App]:
    interceptor = WebSocketInterceptor(backend)
    interceptor.install(app)

    @app.websocket("/listen")
    async def listen(connection: WebSocketConnection = Depends(current_connection)) -> None:
        await connection.join("a")
        await connection.accept()
        await connection.closed.wait()

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield App(app, http, interceptor)


@asynccontextmanager
async def listening(
    app: FastAPI, backend: MemoryWebSocketConnectionBackend | None = None
) -> AsyncIterator[tuple[App, InLoopWebSocket]]:
    async with hosted(app, backend) as running, connect(app, "/listen") as browser:
        yield running, browser


async def told(browser: InLoopWebSocket) -> Any:
    return (await browser.receive_json())["message"]["what"]


async def arrived(app: App, browser: InLoopWebSocket) -> list[Any]:
    """What has arrived up to now."""
    await app.manager.send(["a"], Told(what="now"))
    found = []
    while (what := await told(browser)) != "now":
        found.append(what)
    return found


class TestLifespan:
    async def test_the_applications_own_lifespan_is_inside_of_ours_and_sends(self):
        steps: list[str] = []
        stop = asyncio.Event()

        async def ticking() -> None:
            await stop.wait()
            await Told(what="from a task of the lifespan").send("a")

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            await Told(what="nobody listens yet").send("a")
            task = asyncio.create_task(ticking())
            steps.append("up")
            yield {"own": "state"}
            await task
            await use_ws_manager().send(["a"], Told())
            steps.append("down")

        app = FastAPI(lifespan=own)

        @app.get("/state")
        async def state(request: Request) -> str:
            return str(request.state.own)

        async with listening(app) as (running, browser):
            assert steps == ["up"]
            stop.set()
            assert await told(browser) == "from a task of the lifespan"
            assert running.interceptor.health()[0].healthy
        assert steps == ["up", "down"]
        assert not running.interceptor.health()[0].healthy
        with pytest.raises(NotBound, match=r"install\(app\)"):
            use_ws_manager()

    async def test_it_may_be_started_again(self):
        app = FastAPI()
        interceptor = WebSocketInterceptor()
        interceptor.install(app)
        for _ in range(2):
            async with lifespan(app):
                await interceptor.manager.send(["a"], Told())

    async def test_a_backend_that_does_not_start_fails_the_start(self):
        class Away(MemoryWebSocketConnectionBackend):
            async def start(self) -> None:
                raise BackendUnavailable("away")

            async def subscribe(self, *_: Any) -> None: ...

        app = FastAPI()
        WebSocketInterceptor(Away()).install(app)
        with pytest.raises(RuntimeError, match="away"):
            async with lifespan(app):
                pass

    async def test_other_interceptors_live_with_the_application(self):
        steps: list[str] = []

        class Database:
            @asynccontextmanager
            async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
                steps.append(f"{app.name} up")
                yield
                steps.append("down")

            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                steps.append(app_context.transaction_data.context_type)
                use_ws_manager()
                yield

        app, mounted = FastAPI(title="orders"), FastAPI()
        WebSocketInterceptor().install(app, interceptors=[Database()])
        app.mount("/sub", mounted)

        @mounted.websocket("/ws")
        async def serve(websocket: WebSocket) -> None:
            context = AppTransactionContext(
                transaction_data=WebSocketTransactionData(websocket=websocket), controller=object, handler=serve
            )
            async with websocket.scope[RUNTIME_KEY].unit_of_work(context):
                await websocket.accept()

        async with lifespan(app), connect(app, "/sub/ws"):
            assert app.state.jararaca_ws_runtime.interceptors[1:]
        assert steps == ["orders up", "websocket", "down"]

    def test_it_is_installed_once_and_before_the_start(self):
        app = FastAPI()
        WebSocketInterceptor().install(app)
        with pytest.raises(ConfigurationError, match="already"):
            WebSocketInterceptor().install(app)
        with pytest.raises(ConfigurationError, match="made of a Microservice"):
            WebSocketInterceptor().install(create_http_server(Microservice()))
        started = FastAPI()
        started.middleware_stack = started.build_middleware_stack()
        with pytest.raises(ConfigurationError, match="has started already"):
            WebSocketInterceptor().install(started)


class TestRequestsThatAreNoHandshake:
    async def test_b39_they_are_answered_with_426_unless_the_application_serves_them(self):
        app = FastAPI()

        @app.websocket("/ws/{room}")
        async def serve(websocket: WebSocket) -> None: ...

        @app.get("/ws/both")
        async def both() -> str:
            return "both"

        router = WebSocketRouter(prefix="/typed")

        @router.receive(Told)
        async def receive(message: Told) -> None: ...

        app.include_router(router, prefix="/v1")
        async with hosted(app) as one:
            for path in ("/ws/a", "/v1/typed"):
                refused = await one.http.get(path)
                assert refused.status_code == 426
                assert (refused.headers["upgrade"], refused.headers["connection"]) == ("websocket", "Upgrade")
            assert (await one.http.get("/ws/both")).json() == "both"
            assert (await one.http.post("/ws/both")).status_code == 405
            assert (await one.http.get("/ws")).status_code == 404


class TestRequests:
    async def test_what_a_request_sends_leaves_in_order_right_before_its_response(self):
        app = FastAPI()
        before: list[int] = []

        async def from_a_dependency() -> None:
            await Told(what="dependency").send("a")

        @app.post("/", dependencies=[Depends(from_a_dependency)])
        async def post() -> None:
            message = Told(what="endpoint")
            await message.send("a")
            message.what = "changed after it was sent"
            await asyncio.create_task(Told(what="task").send("a"))
            before.append(use_ws_manager().counters.sent)

        async with listening(app) as (running, browser):
            assert (await running.http.post("/")).status_code == 200
            assert before == [0]
            assert await arrived(running, browser) == ["dependency", "endpoint", "task"]

    @pytest.mark.parametrize(
        "fail",
        [
            lambda: HTTPException(409),
            lambda: RuntimeError("unhandled"),
            lambda: LookupError("handled, with a redirect"),
            lambda: JSONResponse({}, status_code=422),
        ],
        ids=["HTTPException", "unhandled", "handled", "returned"],
    )
    async def test_a_request_that_fails_sends_nothing(self, fail: Callable[[], Any]):
        app = FastAPI()

        @app.exception_handler(LookupError)
        async def elsewhere(request: Request, error: Exception) -> Response:
            return RedirectResponse("/elsewhere")

        @app.post("/", response_model=None)
        async def post() -> Response:
            await Told(what="never").send("a")
            failure = fail()
            if isinstance(failure, Exception):
                raise failure
            return failure

        async with listening(app) as (running, browser):
            assert (await running.http.post("/")).status_code in (307, 409, 422, 500)
            assert await arrived(running, browser) == []

    async def test_a_request_that_is_made_while_something_is_handled_has_not_failed(self):
        app = FastAPI()

        class Retrying(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Any) -> Response:
                try:
                    raise ConnectionError("the first try")
                except ConnectionError:
                    return await call_next(request)

        class RetryingInTheSameTask:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, *arguments: Any) -> None:
                try:
                    raise ConnectionError("the first try")
                except ConnectionError:
                    await self.app(*arguments)

        app.add_middleware(RetryingInTheSameTask)
        app.add_middleware(Retrying)

        @app.post("/{kind}")
        async def post(kind: str) -> Response:
            await Told(what=kind).send("a")
            return StreamingResponse(iter(["streamed"])) if kind == "streamed" else Response()

        async with listening(app) as (running, browser):
            for kind in ("whole", "streamed"):
                await running.http.post(f"/{kind}")
                assert await arrived(running, browser) == [kind]

    async def test_background_tasks_streams_and_ends_of_dependencies_send_at_once(self):
        app = FastAPI()
        released = asyncio.Event()

        async def session() -> AsyncIterator[None]:
            yield
            await Told(what="end of a dependency").send("a")

        async def task() -> None:
            await Told(what="background").send("a")
            await released.wait()

        async def body() -> AsyncIterator[str]:
            await Told(what="stream").send("a")
            await released.wait()
            yield "body"

        @app.post("/background", dependencies=[Depends(session)])
        async def background(tasks: BackgroundTasks) -> None:
            tasks.add_task(task)

        @app.post("/stream")
        async def stream() -> Response:
            return StreamingResponse(body())

        async with listening(app) as (running, browser):
            for path in ("/background", "/stream"):
                request = asyncio.create_task(running.http.post(path))
                assert await told(browser) == path.removeprefix("/")
                assert not request.done()
                released.set()
                await request
                assert await arrived(running, browser) == (["end of a dependency"] if path == "/background" else [])
                released.clear()

    async def test_a_session_of_function_scope_is_committed_before_the_messages_leave(self):
        app = FastAPI()
        sent: list[int] = []

        async def session() -> AsyncIterator[None]:
            yield
            sent.append(use_ws_manager().counters.sent)

        @app.post("/", dependencies=[Depends(session, scope="function")])
        async def post() -> None:
            await Told(what="after the commit").send("a")

        async with listening(app) as (running, browser):
            await running.http.post("/")
            assert sent == [0]
            assert await arrived(running, browser) == ["after the commit"]

    @pytest.mark.parametrize("own_handler", [False, True], ids=["ours", "the application's"])
    async def test_a_flush_that_fails_is_answered_with_503(self, own_handler: bool):
        backend = Recording()
        app = FastAPI()
        ends: list[str] = []

        async def session() -> AsyncIterator[None]:
            try:
                yield
            except BackendUnavailable:
                ends.append("rolled back")
                raise

        async def task() -> None:
            ends.append("the background task ran")

        @app.post("/", dependencies=[Depends(session)])
        async def post(tasks: BackgroundTasks) -> str:
            tasks.add_task(task)
            await Told().send("a")
            return "done"

        if own_handler:

            @app.exception_handler(Unavailable)
            async def own(request: Request, error: Exception) -> Response:
                return Response("ours", status_code=503)

        async with hosted(app, backend) as running:
            backend.down = True
            response = await running.http.post("/")
            assert response.status_code == 503
            assert ("ours" if own_handler else "WebSocket backend is unavailable") in response.text
            assert ends == ["rolled back"]
            backend.down = False
            assert (await running.http.post("/")).json() == "done"

    async def test_nothing_gets_out_of_a_mounted_application_that_hides_a_failed_flush(self):
        backend = Recording()
        app = FastAPI()

        async def stubborn(scope: Any, receive: Any, send: Any) -> None:
            await Told().send("a")
            for status in (200, 201):
                with suppress(BackendUnavailable):
                    await send({"type": "http.response.start", "status": status, "headers": []})
                    await send({"type": "http.response.body", "body": b"done"})
                    return

        app.mount("/sub", stubborn)
        async with hosted(app, backend) as running:
            assert (await running.http.post("/sub/")).status_code == 200
            backend.down = True
            assert (await running.http.post("/sub/")).status_code == 503

    async def test_a_bad_name_is_answered_with_400(self):
        app = FastAPI()

        @app.post("/")
        async def post(room: str) -> None:
            await Told().send(room)

        async with hosted(app) as running:
            assert (await running.http.post("/", params={"room": "a\n"})).status_code == 400

    async def test_a_task_that_outlives_a_failed_request_is_told(self):
        app = FastAPI()
        over = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def late() -> None:
            await over.wait()
            await Told(what="late").send("a")

        @app.post("/{kind}")
        async def post(kind: str) -> None:
            tasks.append(asyncio.create_task(late()))
            if kind == "failing":
                raise RuntimeError("no")

        async with listening(app) as (running, browser):
            for kind in ("failing", "good"):
                await running.http.post(f"/{kind}")
            over.set()
            failed, good = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(failed, UnitOfWorkOver)
            assert "send_now" in str(failed)
            assert good is None
            assert await arrived(running, browser) == ["late"]

    async def test_concurrent_requests_never_see_each_others_sends(self):
        app = FastAPI()
        here = [asyncio.Event(), asyncio.Event()]

        @app.post("/{number}")
        async def post(number: int) -> None:
            await Told(what=number).send("a")
            here[number].set()
            await here[1 - number].wait()
            if number == 0:
                raise HTTPException(400)

        async with listening(app) as (running, browser):
            await asyncio.gather(running.http.post("/0"), running.http.post("/1"))
            assert await arrived(running, browser) == [1]

    async def test_it_works_under_http_middlewares_and_in_mounted_applications(self):
        app, mounted = FastAPI(), FastAPI()

        @app.middleware("http")
        async def timing(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        @mounted.post("/")
        async def post() -> None:
            await Told(what="mounted").send("a")

        app.mount("/sub", mounted)
        async with listening(app) as (running, browser):
            assert (await running.http.post("/sub/")).status_code == 200
            assert await arrived(running, browser) == ["mounted"]


class TestWebSockets:
    async def test_the_connection_is_that_of_the_fastapi_socket(self):
        app = FastAPI()

        @app.websocket("/echo")
        async def echo(websocket: WebSocket, connection: WebSocketConnection = Depends(current_connection)) -> None:
            assert connection.websocket is websocket
            await connection.accept()
            async for text in websocket.iter_text():
                await Told(what=text).send("a")
                await connection.send(Told(what=f"only you: {text}"))

        async with listening(app) as (running, browser), connect(app, "/echo") as speaker:
            assert len(running.manager.connections) == 2
            await speaker.send_text("hi")
            assert await told(browser) == "hi"
            assert await told(speaker) == "only you: hi"
        await until(lambda: not running.manager.connections)

    async def test_an_endpoint_that_knows_nothing_of_us_works_as_before_and_gets_no_broadcasts(self):
        app = FastAPI()

        @app.websocket("/plain")
        async def plain(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())
            assert websocket.scope["jararaca_ws.sockets.connection"].state is ConnectionState.OPEN

        async with hosted(app) as running, connect(app, "/plain") as browser:
            await running.manager.broadcast(Told())
            await browser.send_text("echo")
            assert await browser.receive() == "echo"
            assert (await browser.closed()).code == 1000

    async def test_the_manager_takes_in_a_plain_socket(self):
        app = FastAPI()

        @app.websocket("/old")
        async def old(websocket: WebSocket) -> None:
            await use_ws_manager().join(["a"], websocket)
            await websocket.accept()
            await Told(what="I am here").send("a")
            await websocket.receive()

        async with hosted(app), connect(app, "/old") as browser:
            assert await told(browser) == "I am here"

    async def test_errors_close_as_in_an_endpoint_of_a_controller(self, caplog: pytest.LogCaptureFixture):
        app = FastAPI()

        @app.websocket("/fails")
        async def fails(websocket: WebSocket) -> None:
            await websocket.accept()
            raise RuntimeError("secret")

        @app.websocket("/rooms/{room}")
        async def room(room: str, connection: WebSocketConnection = Depends(current_connection)) -> None:
            await connection.join(room)

        async with hosted(app) as running:
            end = await end_of(running, "/fails")
            assert end.code == 1011
            assert "secret" not in end.reason
            assert len(errors_in(caplog)) == 1
            assert (await end_of(running, "/rooms/%0A")).code == 4501
            assert (await end_of(running, "/nowhere")).status is None
            running.manager.draining = True
            with pytest.raises(WebSocketClosed) as refused:
                async with connect(app, "/listen"):
                    pass
            assert refused.value.status == 503

    async def test_current_connection_is_for_websockets_that_we_serve(self):
        app = FastAPI()
        asked: list[type[Exception]] = []

        @app.exception_handler(ConfigurationError)
        async def note(request: Request, error: Exception) -> Response:
            asked.append(type(error))
            return Response(status_code=500)

        @app.get("/", dependencies=[Depends(current_connection)])
        async def get() -> None: ...

        async with hosted(app) as running:
            assert (await running.http.get("/")).status_code == 500
            assert asked == [ConfigurationError]
