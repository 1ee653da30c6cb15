"""A FastAPI application made of a `Microservice`: each REST request is one unit of work."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import NoneType
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from jararaca_ws.answering import add_answers, add_refusals, add_upgrade_answer
from jararaca_ws.errors import ConfigurationError, JararacaError
from jararaca_ws.interceptors.base import (
    AppInterceptor,
    AppTransactionContext,
    HttpTransactionData,
    InterceptorWithRefusals,
    InterceptorWithRoutes,
)
from jararaca_ws.microservice.config import Microservice
from jararaca_ws.microservice.controllers import join_paths, rest_controller, rest_methods
from jararaca_ws.microservice.openapi import extend_openapi
from jararaca_ws.microservice.runtime import MicroserviceRuntime
from jararaca_ws.signatures import parameters_without_self

__all__ = ["create_http_server"]

_LIFESPAN_OPTIONS = ("lifespan", "on_startup", "on_shutdown")


def create_http_server(microservice: Microservice, **fastapi_options: Any) -> FastAPI:
    """A FastAPI application that serves the REST methods of the controllers and the routes of the interceptors.

    A unit of work goes around the whole handling of a request: reading its body, its dependencies, the method, making
    the response. What fails there (an ``HTTPException``, a request or a response that is not valid) fails the unit of
    work, and is answered by FastAPI after that. A `JararacaError` is answered with its
    status, unless the application has handlers of its own for it. Background tasks, streamed
    bodies and what follows the ``yield`` of a dependency run after the unit of work.

    ``app.state.jararaca_ws_runtime`` is the `MicroserviceRuntime`.

    Args:
        microservice: what is served.
        fastapi_options: for ``FastAPI(...)``. Its ``title`` is the name of the microservice unless given.

    Raises:
        UnresolvableDependency: a constructor parameter of a controller or an interceptor that nothing provides.
        ConfigurationError: two methods for one route, a method that cannot be one, an option that is refused.
    """
    for option in _LIFESPAN_OPTIONS:
        if fastapi_options.get(option) is not None:
            raise ConfigurationError(
                f"create_http_server cannot take {option}=: the microservice has the lifespan of the application",
                "write an interceptor with lifecycle(app, container), which is an asynchronous context manager",
            )
    runtime = MicroserviceRuntime(microservice)
    app = FastAPI(**{"title": microservice.name, **fastapi_options, "lifespan": _lifespan(runtime)})
    add_answers(app.exception_handlers)
    add_refusals(app.exception_handlers, functools.partial(_refuse, runtime))
    add_upgrade_answer(app.router)
    app.state.jararaca_ws_runtime = runtime
    claims: dict[tuple[str, str], str] = {}
    for controller in microservice.controllers:
        router = _controller_router(runtime, controller, claims)
        if router is not None:
            app.include_router(router)
    app.router.routes.extend(_interceptor_routes(runtime, runtime.interceptors))
    extend_openapi(app, runtime)
    return app


def _lifespan(runtime: MicroserviceRuntime) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    at_creation = list(runtime.interceptors)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with runtime.lifespan():
            built = [one for one in runtime.interceptors if not any(one is other for other in at_creation)]
            routes = _interceptor_routes(runtime, built)
            app.router.routes.extend(routes)
            if routes:
                app.openapi_schema = None  # made without them
            extend_openapi(app, runtime)
            try:
                yield
            finally:
                for route in routes:
                    app.router.routes.remove(route)

    return lifespan


async def _refuse(runtime: MicroserviceRuntime, websocket: WebSocket, error: Exception) -> None:
    for interceptor in runtime.interceptors:
        if isinstance(interceptor, InterceptorWithRefusals):
            await interceptor.refuse(websocket, error)
            return
    raise error


def _interceptor_routes(runtime: MicroserviceRuntime, interceptors: Iterable[AppInterceptor]) -> list[BaseRoute]:
    having = [interceptor for interceptor in interceptors if isinstance(interceptor, InterceptorWithRoutes)]
    return [route for interceptor in having for route in interceptor.http_routes(runtime)]


def _controller_router(
    runtime: MicroserviceRuntime, controller: type, claims: dict[tuple[str, str], str]
) -> APIRouter | None:
    """The REST routes of a controller; None where it has none."""
    declared = rest_controller(controller)
    router = APIRouter(**declared.router_options) if declared else None
    for attribute, function, declaration in rest_methods(controller):
        name = f"{controller.__module__}.{controller.__qualname__}.{attribute}"
        if declared is None or router is None:
            raise ConfigurationError(
                f"{name} is a REST method, but {controller.__qualname__} is no REST controller",
                "decorate the class with @RestController(path)",
            )
        path = join_paths(declared.path, declaration.path)
        _claim(claims, declaration.http_method, path, name)
        router.add_api_route(
            path,
            _endpoint(runtime, controller, attribute, function, name),
            methods=[declaration.http_method],
            route_class_override=_route_class(runtime, controller, function),
            **declaration.route_options,
        )
    return router


def _claim(claims: dict[tuple[str, str], str], method: str, path: str, name: str) -> None:
    # /tasks/{id} and /tasks/{task_id} are the same to a router, and the second would never be reached.
    nameless = re.sub(r"\{[^}:]*", "{", path)
    first = claims.setdefault((method, nameless), name)
    if first is not name:
        raise ConfigurationError(f"{method} {path} is claimed by both {first} and {name}", "change one of them")


def _route_class(runtime: MicroserviceRuntime, controller: type, function: Callable[..., Any]) -> type[APIRoute]:
    class UnitOfWorkRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_as_unit_of_work(request: Request) -> Response:
                app_context = AppTransactionContext(
                    transaction_data=HttpTransactionData(request=request), controller=controller, handler=function
                )
                failure: BaseException | None = None
                try:
                    async with runtime.unit_of_work(app_context):
                        try:
                            return await handle(request)
                        except BaseException as error:
                            failure = error
                            raise
                    raise JararacaError(
                        f"an interceptor swallowed the error of {function.__qualname__}, so there is no response: "
                        "an interceptor that handles an error has to raise another one, an HTTPException for example"
                    ) from failure
                finally:
                    del failure  # it holds this frame, and the request with it

            return handle_as_unit_of_work

    return UnitOfWorkRoute


def _endpoint(
    runtime: MicroserviceRuntime, controller: type, attribute: str, function: Callable[..., Any], name: str
) -> Callable[..., Any]:
    """What FastAPI calls: it has the parameters of the method without ``self``, and runs it on a new controller."""
    innermost = inspect.unwrap(function)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(innermost)
    if not is_async and (inspect.isgeneratorfunction(innermost) or inspect.isasyncgenfunction(innermost)):
        raise ConfigurationError(
            f"{name} is a generator, which would run after its unit of work", "return a StreamingResponse"
        )

    async def call_async(**arguments: Any) -> Any:
        return await getattr(runtime.build(controller), attribute)(**arguments)

    async def call_sync(**arguments: Any) -> Any:
        method = getattr(runtime.build(controller), attribute)
        return await run_in_threadpool(functools.partial(method, **arguments))

    endpoint: Any = call_async if is_async else call_sync
    functools.update_wrapper(endpoint, function, ("__module__", "__name__", "__qualname__", "__doc__"), updated=())
    del endpoint.__wrapped__  # whoever looked through it would find a function with self
    parameters, returned = parameters_without_self(function)
    # FastAPI tells `-> None` (no response model) from a model of NoneType.
    endpoint.__signature__ = inspect.Signature(parameters, return_annotation=None if returned is NoneType else returned)
    return endpoint  # type: ignore[no-any-return]
