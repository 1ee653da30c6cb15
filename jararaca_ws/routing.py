"""`@WebSocketEndpoint`: which controller methods serve WebSockets, and the ASGI route of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import WebSocket, params
from fastapi.routing import APIWebSocketRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from jararaca_ws.connection import WebSocketConnection
from jararaca_ws.errors import ConfigurationError, DuplicateEndpoint
from jararaca_ws.interceptors.base import ENDPOINT_MARK
from jararaca_ws.manager import SCOPE_KEY, WebSocketConnectionManager
from jararaca_ws.serving import ServedWebSocket
from jararaca_ws.signatures import parameters_without_self

__all__ = ["Endpoint", "WebSocketEndpoint", "check_paths", "endpoint_route", "endpoints_of"]

_F = TypeVar("_F", bound=Callable[..., Any])
_WEBSOCKET = "jararaca_ws_websocket"


class WebSocketEndpoint:
    """Serve WebSockets on a path with an ``async def`` method of a controller.

    The path is joined to that of ``@RestController``. The method's parameters are FastAPI's: path, query, header and
    cookie parameters, ``Depends``. It gets the socket by annotation, either or both of:

    - `WebSocketConnection`: accepted already and known to the manager;
    - FastAPI's ``WebSocket``: to be accepted by the method itself, unless it takes the connection too.

    The interceptors go around the method, for as long as it runs; what it sends leaves at once. When it returns the
    socket is closed with 1000, when it raises with 1011, and the error is logged once.

    Args:
        path: as in FastAPI.
        accept: False when the method accepts by itself, with ``connection.accept()``: after it has joined its rooms,
            say, so that a browser misses nothing that is sent once it is connected.
        name: of the route, for ``url_path_for``.
        dependencies: FastAPI dependencies that run before the method; one that raises refuses the handshake.

    Raises:
        ConfigurationError: at once, for a function that is not ``async def``.
    """

    def __init__(
        self,
        path: str = "",
        *,
        accept: bool = True,
        name: str | None = None,
        dependencies: Sequence[params.Depends] = (),
    ) -> None:
        if not isinstance(path, str):
            raise ConfigurationError("@WebSocketEndpoint was used without a path", 'write @WebSocketEndpoint("/path")')
        self.path = path
        self.accept = accept
        self.name = name
        self.dependencies = dependencies

    def __call__(self, function: _F) -> _F:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"{function.__module__}.{function.__qualname__} is a @WebSocketEndpoint but not async",
                "write async def",
            )
        setattr(function, ENDPOINT_MARK, self)
        return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One `@WebSocketEndpoint` method of one controller.

    Attributes:
        path: the whole path, that of the controller included.
    """

    path: str
    controller: type
    function: Callable[..., Awaitable[None]]
    spec: WebSocketEndpoint


def endpoints_of(controller: type, join: Callable[[str], str]) -> list[Endpoint]:
    """The endpoints of a controller, inherited ones included; ``join`` makes a whole path of an endpoint's path."""
    found = []
    for name in dict.fromkeys(name for cls in reversed(controller.__mro__) for name in vars(cls)):
        function = inspect.getattr_static(controller, name)
        spec = getattr(function, ENDPOINT_MARK, None)
        if isinstance(spec, WebSocketEndpoint):
            found.append(Endpoint(path=join(spec.path), controller=controller, function=function, spec=spec))
    return found


def check_paths(endpoints: Sequence[Endpoint]) -> None:
    """Refuse a second endpoint on a path; the names of path parameters make no difference.

    Raises:
        DuplicateEndpoint: names both methods.
    """
    seen: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        first = seen.setdefault(re.sub(r"{[^}:]*(:str)?", "{", endpoint.path), endpoint)
        if first is not endpoint:
            raise DuplicateEndpoint(endpoint.path, first.function, endpoint.function)


def endpoint_route(
    endpoint: Endpoint,
    *,
    manager: WebSocketConnectionManager,
    build: Callable[[type], Any],
    unit_of_work: Callable[[WebSocket], AbstractAsyncContextManager[None]],
) -> APIWebSocketRoute:
    """The route that serves an endpoint.

    ``unit_of_work`` goes around the handling of one WebSocket, FastAPI's dependencies included; within it, ``build``
    makes the controller.
    """
    try:
        route = APIWebSocketRoute(
            endpoint.path,
            _without_self(endpoint, manager, build),
            name=endpoint.spec.name or endpoint.function.__name__,
            dependencies=endpoint.spec.dependencies,
        )
    except (AssertionError, ValueError) as error:  # starlette's way to say that a path is none
        raise ConfigurationError(f"the WebSocket path {endpoint.path!r} cannot be served ({error})") from error
    route.app = _served(route.app, manager, unit_of_work)
    return route


def _served(
    app: ASGIApp,
    manager: WebSocketConnectionManager,
    unit_of_work: Callable[[WebSocket], AbstractAsyncContextManager[None]],
) -> ASGIApp:
    """FastAPI's application for one route, between our receive and our send."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        socket = ServedWebSocket(scope, receive, send, manager.settings, manager.flusher)
        socket.connection.bind(manager)
        scope[SCOPE_KEY] = socket.connection

        async def handle() -> None:
            if manager.draining:  # it would be closed again in a moment: another instance may take it
                raise HTTPException(503)
            async with unit_of_work(socket.connection.websocket):
                await app(scope, socket.receive, socket.send)

        await socket.run(handle)

    return served


def _without_self(
    endpoint: Endpoint, manager: WebSocketConnectionManager, build: Callable[[type], Any]
) -> Callable[..., Awaitable[None]]:
    """The function that FastAPI sees: the method's parameters but for `self` and the connection."""
    function = endpoint.function
    parameters, _ = parameters_without_self(function)
    connections = [parameter.name for parameter in parameters if parameter.annotation is WebSocketConnection]
    sockets = [parameter.name for parameter in parameters if parameter.annotation is WebSocket]
    visible = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters
        if parameter.name not in connections
    ]
    if not sockets:
        # FastAPI fills one WebSocket parameter, and no more: ask for it under a name that no path parameter has.
        visible.append(inspect.Parameter(_WEBSOCKET, inspect.Parameter.KEYWORD_ONLY, annotation=WebSocket))

    async def served(**values: Any) -> None:
        websocket: WebSocket = values[sockets[-1]] if sockets else values.pop(_WEBSOCKET)
        connection: WebSocketConnection = websocket.scope[SCOPE_KEY]
        if connections:
            connection.websocket = websocket
            if endpoint.spec.accept:
                await connection.accept()
            await manager.add_websocket(connection)
        await function(build(endpoint.controller), **values, **dict.fromkeys(connections, connection))

    served.__signature__ = inspect.Signature(visible)  # type: ignore[attr-defined]
    served.__name__ = function.__name__
    served.__qualname__ = function.__qualname__
    served.__module__ = function.__module__
    served.__doc__ = function.__doc__
    return served
