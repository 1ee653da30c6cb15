from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from dependency_injector import containers, providers
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.routing import BaseRoute, Route

from jararaca_ws.errors import BackendUnavailable, BadRoom, ConfigurationError, JararacaError, UnresolvableDependency
from jararaca_ws.interceptors.base import AppTransactionContext, Runtime
from jararaca_ws.microservice import (
    Delete,
    Get,
    Microservice,
    MicroserviceRuntime,
    Patch,
    Post,
    Put,
    RestController,
    create_http_server,
)

from .serving import Around, Recording, serving

if TYPE_CHECKING:
    from decimal import Decimal

who: ContextVar[str] = ContextVar("who", default="nobody")


class Priority(Enum):
    LOW = "low"
    HIGH = "high"


class NewTask(BaseModel):
    title: str


class Task(NewTask):
    id: int


class Store:
    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}


def server_of(*controllers: type, interceptors: Any = (), **options: Any) -> FastAPI:
    own = containers.DynamicContainer()
    own.store = providers.Singleton(Store)
    return create_http_server(
        Microservice(controllers=controllers, interceptors=interceptors, container=own, name="tasks"), **options
    )


async def answer_to(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async with serving(app) as client:
        return await client.request(method, path, **request)


@RestController("/tasks", tags=["tasks"])
class Tasks:
    def __init__(self, store: Store) -> None:
        self.store = store

    @Get("/")
    async def listed(self, priority: Priority | None = None) -> list[Task]:
        """All of them.

        In no order.
        """
        return list(self.store.tasks.values())

    @Post("", status_code=201)
    async def create(self, new: NewTask) -> Task:
        task = Task(id=len(self.store.tasks) + 1, title=new.title)
        self.store.tasks[task.id] = task
        return task

    @Get("/{task_id}", tags=["one"])
    def read(self, task_id: int, trace: Annotated[str, Header()] = "none") -> Task:
        if task_id not in self.store.tasks:
            raise HTTPException(404, "no such task")
        return self.store.tasks[task_id]

    @Put("/{task_id}")
    @Patch("/{task_id}")
    async def change(self, task_id: int, new: NewTask) -> Task:
        return Task(id=task_id, title=new.title)

    @Delete("/{task_id}", status_code=204)
    async def delete(self, task_id: int) -> None:
        del self.store.tasks[task_id]


class TestRouting:
    async def test_every_method(self) -> None:
        async with serving(server_of(Tasks)) as client:
            created = await client.post("/tasks", json={"title": "one"})
            assert (created.status_code, created.json()) == (201, {"title": "one", "id": 1})
            assert (await client.get("/tasks/")).json() == [{"title": "one", "id": 1}]
            assert (await client.get("/tasks/1")).json() == {"title": "one", "id": 1}
            assert (await client.put("/tasks/1", json={"title": "two"})).json()["title"] == "two"
            assert (await client.patch("/tasks/1", json={"title": "six"})).json()["title"] == "six"
            assert (await client.delete("/tasks/1")).status_code == 204
            assert (await client.get("/tasks/1")).json() == {"detail": "no such task"}

    async def test_openapi_is_that_of_functions(self) -> None:
        document = (await answer_to(server_of(Tasks), "GET", "/openapi.json")).json()
        assert document["info"]["title"] == "tasks"
        assert {path: sorted(methods) for path, methods in document["paths"].items()} == {
            "/tasks/": ["get"],
            "/tasks": ["post"],
            "/tasks/{task_id}": ["delete", "get", "patch", "put"],
        }
        listed = document["paths"]["/tasks/"]["get"]
        assert listed["operationId"] == "listed_tasks__get"
        assert (listed["summary"], listed["description"]) == ("Listed", "All of them.\n\nIn no order.")
        assert [parameter["name"] for parameter in listed["parameters"]] == ["priority"]
        assert listed["responses"]["200"]["content"]["application/json"]["schema"]["items"] == {
            "$ref": "#/components/schemas/Task"
        }
        one = document["paths"]["/tasks/{task_id}"]
        assert one["get"]["tags"] == ["tasks", "one"]
        assert [(found["name"], found["in"]) for found in one["get"]["parameters"]] == [
            ("task_id", "path"),
            ("trace", "header"),
        ]
        assert "content" not in one["delete"]["responses"]["204"]
        assert len({one[method]["operationId"] for method in one}) == 4
        created = document["paths"]["/tasks"]["post"]
        assert created["requestBody"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/NewTask"
        }
        assert "201" in created["responses"]

    async def test_options_of_fastapi_and_of_the_controller(self) -> None:
        def refuse() -> None:
            raise HTTPException(401)

        @RestController("/x", dependencies=[Depends(refuse)], deprecated=True)
        class Guarded:
            @Get("/y", name="why", response_class=PlainTextResponse)
            async def y(self) -> str:
                return "y"

        app = server_of(Guarded, title="Own title", docs_url=None, lifespan=None)
        async with serving(app) as client:
            assert (await client.get("/x/y")).status_code == 401
            app.dependency_overrides[refuse] = lambda: None
            assert (await client.get("/x/y")).text == "y"
            assert (await client.get("/docs")).status_code == 404
        assert app.title == "Own title"
        assert app.url_path_for("why") == "/x/y"
        assert app.openapi()["paths"]["/x/y"]["get"]["deprecated"] is True

    async def test_inherited_and_wrapped_methods(self) -> None:
        def shouted(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            return wrapper

        class Base:
            @Get("/inherited/{number}")
            async def inherited(self, number: int) -> int:
                return number

        @RestController("/x")
        class Derived(Base):
            @shouted
            @Get("/wrapped/{number}")
            async def wrapped(self, number: int) -> int:
                return number + 1

        async with serving(server_of(Derived)) as client:
            assert (await client.get("/x/inherited/1")).json() == 1
            assert (await client.get("/x/wrapped/1")).json() == 2

    async def test_a_double_of_a_controller_is_called(self) -> None:
        @RestController("/x")
        class Real:
            @Get("/")
            async def name(self) -> str:
                return "real"

        class Double(Real):
            async def name(self) -> str:
                return "double"

        own = containers.DynamicContainer()
        own.double = providers.Factory(Double)
        app = create_http_server(Microservice(controllers=[Real], container=own))
        assert (await answer_to(app, "GET", "/x/")).json() == "double"

    async def test_a_controller_without_routes_is_fine(self) -> None:
        class Handlers: ...

        assert (await answer_to(server_of(Handlers, Tasks), "GET", "/tasks/")).json() == []


class TestRefusals:
    def test_two_methods_for_one_route(self) -> None:
        @RestController("/tasks")
        class Other:
            @Get("{number}")
            async def other(self, number: int) -> None: ...

        with pytest.raises(
            ConfigurationError,
            match=r"GET /tasks/\{number\} is claimed by both .*Tasks\.read and .*Other\.other: change",
        ):
            server_of(Tasks, Other)

    def test_a_rest_method_outside_of_a_rest_controller(self) -> None:
        class Forgotten:
            @Get("/")
            async def listed(self) -> None: ...

        with pytest.raises(
            ConfigurationError, match=r"Forgotten\.listed is a REST method, but .*@RestController\(path\)"
        ):
            server_of(Forgotten)

    def test_a_dependency_that_nothing_provides(self) -> None:
        @RestController()
        class Needing:
            def __init__(self, url: str) -> None: ...

        with pytest.raises(UnresolvableDependency, match=r"Needing.__init__ parameter 'url'"):
            server_of(Needing)

    def test_methods_that_cannot_be_routes(self) -> None:
        @RestController()
        class Unknown:
            @Get("/")
            async def price(self, price: Decimal) -> None: ...

        @RestController()
        class Generating:
            @Get("/")
            def lines(self) -> Iterator[str]:
                yield "line"

        @RestController()
        class Selfless:
            @Get("/")
            async def selfless() -> None: ...  # type: ignore[misc]

        for controller, said in (
            (Unknown, r"Unknown\.price is annotated with 'Decimal', which its module does not know"),
            (Generating, r"Generating\.lines is a generator, .*: return a StreamingResponse"),
            (Selfless, r"Selfless\.selfless takes no self"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                server_of(controller)

    @pytest.mark.parametrize("option", ["lifespan", "on_startup", "on_shutdown"])
    def test_a_lifespan_of_the_user(self, option: str) -> None:
        with pytest.raises(ConfigurationError, match=f"cannot take {option}=: .* interceptor with lifecycle"):
            server_of(**{option: [print]})


@RestController("/x")
class Failing:
    @Get("/http")
    async def http(self) -> None:
        raise HTTPException(409, "conflict")

    @Get("/error")
    def error(self) -> None:
        raise ValueError("broken")

    @Get("/request")
    async def request(self, number: int) -> None: ...

    @Get("/response")
    async def response(self) -> Task:
        return {"id": "no number"}  # type: ignore[return-value]

    @Get("/unavailable")
    async def unavailable(self) -> None:
        raise BackendUnavailable("no answer")

    @Get("/ok")
    async def ok(self) -> Response:
        return JSONResponse({"fine": True}, status_code=202)


class TestUnitOfWork:
    @pytest.mark.parametrize(
        ("path", "status", "error"),
        [
            ("/x/http", 409, "HTTPException"),
            ("/x/error", 500, "ValueError"),
            ("/x/request?number=x", 422, "RequestValidationError"),
            ("/x/response", 500, "ResponseValidationError"),
            ("/x/unavailable", 503, "BackendUnavailable"),
        ],
    )
    async def test_what_fails_in_the_handling_of_a_request_fails_it(self, path: str, status: int, error: str) -> None:
        log: list[Any] = []
        app = server_of(Failing, interceptors=[Recording("a", log), Recording("b", log)])
        assert (await answer_to(app, "GET", path)).status_code == status
        assert log == ["+a", "+b", f"!b {error}", f"!a {error}"]

    async def test_success(self) -> None:
        log: list[Any] = []
        response = await answer_to(server_of(Failing, interceptors=[Recording("a", log)]), "GET", "/x/ok")
        assert (response.status_code, log) == (202, ["+a", "-a"])

    async def test_what_is_not_routed_here_is_no_unit_of_work(self) -> None:
        log: list[Any] = []
        app = server_of(Failing, interceptors=[Recording("a", log)])
        async with serving(app) as client:
            assert (await client.get("/nothing")).status_code == 404
            assert (await client.get("/openapi.json")).status_code == 200
        assert log == []

    async def test_an_interceptor_is_told_the_request_the_controller_and_the_method(self) -> None:
        told: list[AppTransactionContext] = []

        async def around(app_context: AppTransactionContext) -> AsyncIterator[None]:
            told.append(app_context)
            yield

        await answer_to(server_of(Tasks, interceptors=[Around(around)]), "GET", "/tasks/")
        (context,) = told
        assert context.transaction_data.context_type == "http"
        assert context.transaction_data.request.url.path == "/tasks/"
        assert (context.controller, context.handler) == (Tasks, Tasks.listed)

    async def test_an_error_after_the_method_fails_the_request(self, caplog: pytest.LogCaptureFixture) -> None:
        async def flushing(_: AppTransactionContext) -> AsyncIterator[None]:
            yield
            raise BackendUnavailable("no confirmation")

        response = await answer_to(server_of(Failing, interceptors=[Around(flushing)]), "GET", "/x/ok")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        # The reason may name a host: it goes to the log, not to the client.
        told = response.json()
        assert told == {
            "detail": "the WebSocket backend is unavailable: try again",
            "code": "unavailable",
            "id": told["id"],
        }
        assert f"no confirmation (error {told['id']})" in caplog.text
        assert "no confirmation" in caplog.text

    async def test_a_bad_room_is_the_mistake_of_the_client(self) -> None:
        async def joining(_: AppTransactionContext) -> AsyncIterator[None]:
            yield
            raise BadRoom("secret\0", "it has a control character")

        response = await answer_to(server_of(Failing, interceptors=[Around(joining)]), "GET", "/x/ok")
        assert response.status_code == 400
        assert response.json()["detail"] == "not a room: it has a control character"
        assert response.json()["code"] == "bad_room"

    async def test_the_answer_to_unavailable_can_be_overridden(self) -> None:
        async def own(_: Request, __: Exception) -> Response:
            return PlainTextResponse("own", 502)

        added = server_of(Failing)
        added.add_exception_handler(BackendUnavailable, own)
        given = server_of(Failing, exception_handlers={BackendUnavailable.__base__: own})
        for app in (added, given):
            assert (await answer_to(app, "GET", "/x/unavailable")).status_code == 502

    async def test_a_swallowed_error_is_not_taken_for_success(self) -> None:
        async def swallowing(_: AppTransactionContext) -> AsyncIterator[None]:
            try:
                yield
            except ValueError as swallowed:
                assert str(swallowed) == "broken"  # noqa: PT017

        app = server_of(Failing, interceptors=[Around(swallowing)])
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                with pytest.raises(
                    JararacaError, match=r"swallowed the error of Failing\.error, so .*HTTPExc"
                ) as raised:
                    await client.get("/x/error")
        assert isinstance(raised.value.__cause__, ValueError)

    async def test_cancellation_passes_through(self) -> None:
        log: list[Any] = []
        reached = asyncio.Event()

        @RestController()
        class Waiting:
            @Get("/")
            async def wait(self) -> None:
                reached.set()
                await asyncio.Event().wait()

        async with serving(server_of(Waiting, interceptors=[Recording("a", log)])) as client:
            request = asyncio.create_task(client.get("/"))
            await reached.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        assert log == ["+a", "!a CancelledError"]

    async def test_an_interceptor_may_read_the_body_first(self) -> None:
        bodies: list[bytes] = []

        async def reading(app_context: AppTransactionContext) -> AsyncIterator[None]:
            bodies.append(await app_context.transaction_data.request.body())  # type: ignore[union-attr]
            yield

        app = server_of(Tasks, interceptors=[Around(reading)])
        assert (await answer_to(app, "POST", "/tasks", json={"title": "x"})).status_code == 201
        assert bodies == [b'{"title":"x"}']


async def naming(app_context: AppTransactionContext) -> AsyncIterator[None]:
    token = who.set(app_context.transaction_data.request.headers["who"])  # type: ignore[union-attr]
    try:
        yield
    finally:
        who.reset(token)


class TestContext:
    async def test_concurrent_requests_see_only_their_own(self) -> None:
        together = asyncio.Barrier(20)

        @RestController()
        class Named:
            def __init__(self, store: Store) -> None:
                self.at_construction = who.get()

            @Get("/")
            async def name(self) -> list[str]:
                before = who.get()
                await together.wait()
                return [self.at_construction, before, who.get()]

        async with serving(server_of(Named, interceptors=[Around(naming)])) as client:
            names = [str(number) for number in range(20)]
            answers = await asyncio.gather(*(client.get("/", headers={"who": name}) for name in names))
        assert [answer.json() for answer in answers] == [[name] * 3 for name in names]

    async def test_a_sync_method_runs_in_a_thread_and_sees_the_context(self) -> None:
        @RestController()
        class Synchronous:
            @Get("/{func}")
            def name(self, func: str) -> list[str]:
                return [func, who.get(), threading.current_thread().name]

        app = server_of(Synchronous, interceptors=[Around(naming)])
        func, name, thread = (await answer_to(app, "GET", "/x", headers={"who": "me"})).json()
        assert (func, name) == ("x", "me")
        assert thread != threading.current_thread().name

    async def test_dependencies_run_in_the_unit_of_work_and_end_after_it(self) -> None:
        log: list[Any] = []

        async def session() -> AsyncIterator[str]:
            log.append(f"session of {who.get()}")
            yield "session"
            log.append(f"end, {who.get()}")

        def synchronous() -> str:
            return who.get()

        @RestController()
        class Depending:
            @Get("/")
            async def name(self, session: str = Depends(session), name: str = Depends(synchronous)) -> list[str]:
                log.append("method")
                return [session, name]

        app = server_of(Depending, interceptors=[Recording("a", log), Around(naming)])
        assert (await answer_to(app, "GET", "/", headers={"who": "me"})).json() == ["session", "me"]
        assert log == ["+a", "session of me", "method", "-a", "end, nobody"]

    async def test_background_tasks_run_after_the_unit_of_work(self) -> None:
        log: list[Any] = []

        @RestController()
        class Later:
            @Get("/")
            async def start(self, tasks: BackgroundTasks) -> None:
                tasks.add_task(lambda: log.append(f"background, {who.get()}"))

        app = server_of(Later, interceptors=[Recording("a", log), Around(naming)])
        await answer_to(app, "GET", "/", headers={"who": "me"})
        assert log == ["+a", "-a", "background, nobody"]


class Routing(Recording):
    """Contributes a route, and counts how often it was asked."""

    def __init__(self, store: Store) -> None:
        super().__init__("routing", [])
        self.store = store

    def http_routes(self, runtime: Runtime) -> list[BaseRoute]:
        self.log.append(runtime.name)

        async def answer(_: Request) -> Response:
            return PlainTextResponse(f"{runtime.name} {len(self.store.tasks)}")

        return [Route("/contributed", answer)]


class TestInterceptorRoutes:
    async def test_of_an_instance_are_there_at_once(self) -> None:
        interceptor = Routing(Store())
        app = server_of(Tasks, interceptors=[interceptor])
        assert interceptor.log == ["tasks"]
        for _ in range(2):
            assert (await answer_to(app, "GET", "/contributed")).text == "tasks 0"
        assert interceptor.log == ["tasks"]

    async def test_of_one_that_the_container_builds_are_there_while_it_runs(self) -> None:
        app = server_of(Tasks, interceptors=[Routing])
        routes = list(app.router.routes)
        for _ in range(2):
            assert (await answer_to(app, "GET", "/contributed")).text == "tasks 0"
            assert app.router.routes == routes


class TestLifespan:
    async def test_is_that_of_the_runtime(self) -> None:
        log: list[Any] = []

        class Living(Recording):
            def lifecycle(self, app: Any, container: Any) -> Any:
                return self.intercept(app)

        app = server_of(Tasks, interceptors=[Living("a", log)])
        runtime = app.state.jararaca_ws_runtime
        assert isinstance(runtime, MicroserviceRuntime)
        async with app.router.lifespan_context(app):
            assert log == ["+a"]
            with pytest.raises(ConfigurationError, match="is running already"):
                await runtime.lifespan().__aenter__()
        assert log == ["+a", "-a"]

    async def test_a_request_before_the_start_says_what_to_do(self) -> None:
        app = server_of(Tasks, interceptors=[Routing])
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            with pytest.raises(ConfigurationError, match=r"has not been started.*app\.router\.lifespan_context\(app\)"):
                await client.get("/tasks/")
