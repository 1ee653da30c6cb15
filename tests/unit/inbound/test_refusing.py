"""What refuses a handshake does so alike: in a controller, in a router, in a plain route of FastAPI."""

# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException

from jararaca_ws import (
    AppTransactionContext,
    BadRoom,
    JararacaError,
    Microservice,
    PermissionDenied,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketRouter,
    create_http_server,
    current_connection,
)
from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from tests.unit.played import errors_in

Refusal = Callable[[], Exception]

REFUSALS = [
    pytest.param(lambda: WebSocketException(4400, "because"), (4400, "because", None), id="4xxx"),
    pytest.param(lambda: WebSocketException(4999), (4999, "", None), id="4999"),
    pytest.param(lambda: WebSocketException(1008, "because"), (1008, "", None), id="1008"),
    pytest.param(lambda: PermissionDenied("a"), (4507, "permission denied", None), id="permission"),
    pytest.param(lambda: BadRoom("a\n", "x"), (4501, "not a room: x", None), id="bad room"),
]
STATUSES = [
    pytest.param(lambda: HTTPException(401), 401, id="401"),
    pytest.param(lambda: HTTPException(503), 503, id="503"),
]


def microservice(*controllers: type, where: str) -> FastAPI:
    if where == "microservice":
        return create_http_server(Microservice(controllers=controllers, interceptors=[WebSocketInterceptor()]))
    app = FastAPI()
    WebSocketInterceptor().install(app)
    return app


def endpoint(refusal: Refusal, *, by_dependency: bool) -> FastAPI:
    async def refuse() -> None:
        raise refusal()

    class Controller:
        @WebSocketEndpoint("/ws", accept=False, dependencies=[Depends(refuse)] if by_dependency else [])
        async def serve(self, connection: WebSocketConnection) -> None:
            raise refusal()

    return microservice(Controller, where="microservice")


def router(refusal: Refusal, *, where: str, by_dependency: bool) -> FastAPI:
    async def refuse() -> None:
        raise refusal()

    routed = WebSocketRouter("/ws", dependencies=[Depends(refuse)] if by_dependency else [])

    @routed.on_connect
    async def connecting(connection: WebSocketConnection) -> None:
        raise refusal()

    @routed.on_disconnect
    async def gone() -> None:
        pytest.fail("it was never connected")

    app = microservice(where=where)
    app.include_router(routed)
    return app


def plain(refusal: Refusal, *, by_dependency: bool) -> FastAPI:
    app = microservice(where="installed")

    async def refuse() -> None:
        raise refusal()

    @app.websocket("/ws", dependencies=[Depends(refuse)] if by_dependency else [])
    async def serve(connection: WebSocketConnection = Depends(current_connection)) -> None:
        raise refusal()

    return app


def closing(refusal: Refusal, **_: Any) -> FastAPI:
    app = microservice(where="installed")

    @app.websocket("/ws")
    async def serve(websocket: WebSocket) -> None:
        error = refusal()
        assert isinstance(error, WebSocketException)
        await websocket.close(error.code, error.reason)

    return app


WAYS = {
    "controller": endpoint,
    "router": lambda refusal, **options: router(refusal, where="microservice", **options),
    "installed router": lambda refusal, **options: router(refusal, where="installed", **options),
    "plain route": plain,
}


@asynccontextmanager
async def ended(app: FastAPI) -> AsyncIterator[tuple[WebSocketClosed, bool]]:
    """How it ended, and whether it was accepted."""
    async with lifespan(app):
        try:
            async with connect(app, "/ws") as socket:
                yield await socket.closed(), True
        except WebSocketClosed as refused:
            yield refused, False
        manager = app.state.jararaca_ws_runtime.interceptors[0].manager
        assert not manager.connections


@pytest.mark.parametrize("by_dependency", [False, True], ids=["handler", "dependency"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("refusal", "end"), REFUSALS)
async def test_a_code_from_4000_on_reaches_the_browser(
    way: str, refusal: Refusal, end: Any, by_dependency: bool, caplog: pytest.LogCaptureFixture
):
    async with ended(WAYS[way](refusal, by_dependency=by_dependency)) as (closed, accepted):
        assert accepted == (end[0] >= 4000)
        assert (closed.code, closed.status) == (end[0], end[2])
        assert closed.reason == end[1] or not accepted
    assert not errors_in(caplog)


@pytest.mark.parametrize("by_dependency", [False, True], ids=["handler", "dependency"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("refusal", "status"), STATUSES)
async def test_an_http_exception_is_an_http_answer(way: str, refusal: Refusal, status: int, by_dependency: bool):
    async with ended(WAYS[way](refusal, by_dependency=by_dependency)) as (closed, accepted):
        assert not accepted
        assert closed.status == status


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_route_that_nobody_of_ours_serves_refuses_alike(accepted: bool, caplog: pytest.LogCaptureFixture):
    app = microservice(where="microservice")

    @app.websocket("/ws")
    async def serve(websocket: WebSocket) -> None:
        if accepted:
            await websocket.accept()
        raise WebSocketException(4400, "because")

    async with ended(app) as (closed, reached):
        assert reached
        assert (closed.code, closed.reason) == (4400, "because")
    assert not errors_in(caplog)


async def test_a_close_by_exception_fails_the_unit_of_work_of_an_endpoint():
    ends: list[Any] = []

    class Watching:
        @asynccontextmanager
        async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
            try:
                yield
            except BaseException as error:
                ends.append(type(error))
                raise

    class Controller:
        @WebSocketEndpoint("/ws")
        async def serve(self, connection: WebSocketConnection) -> None:
            raise WebSocketException(4400, "because")

    interceptors = [WebSocketInterceptor(), Watching()]
    async with ended(create_http_server(Microservice(controllers=[Controller], interceptors=interceptors))) as end:
        assert (end[0].code, end[0].reason) == (4400, "because")
    assert ends == [WebSocketException]


async def test_the_application_s_own_answers_stay():
    app = router(lambda: PermissionDenied("a"), where="microservice", by_dependency=True)

    @app.exception_handler(PermissionDenied)
    async def answer(websocket: WebSocket, error: PermissionDenied) -> None:
        await websocket.accept()
        await websocket.close(4001, "my own")

    async with ended(app) as (closed, _):
        assert (closed.code, closed.reason) == (4001, "my own")


async def test_a_failure_in_a_dependency_is_one():
    app = router(lambda: JararacaError("a secret"), where="microservice", by_dependency=True)
    async with ended(app) as (closed, accepted):
        assert not accepted
        assert (closed.code, closed.status) == (1006, None), "as the failures of the application's own routes"


async def test_a_plain_close_before_the_accept_reaches_it_too():
    async with ended(closing(lambda: WebSocketException(4400, "because"))) as (closed, accepted):
        assert accepted
        assert (closed.code, closed.reason) == (4400, "because")


async def test_an_application_without_a_title_can_be_a_host():
    app = FastAPI(title="", openapi_url=None)
    WebSocketInterceptor().install(app)
    async with lifespan(app):
        assert app.title == ""
