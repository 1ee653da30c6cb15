"""`@WebSocketEndpoint`: which controller methods serve WebSockets, and the ASGI route of each."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from fastapi import WebSocket, params
from fastapi.routing import APIWebSocketRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Scope, Send
from starlette.types import Receive as Receives

from jararaca_ws.auth.access import INHERITED, PUBLIC, Access, AllowedOrigins, Authenticate, Inherited, StatedAccess
from jararaca_ws.auth.door import Door
from jararaca_ws.auth.sources import TokenSource
from jararaca_ws.errors import ConfigurationError, DuplicateEndpoint
from jararaca_ws.inbound.client_rooms import ClientRooms, RoomRequests
from jararaca_ws.inbound.disconnecting import OnDisconnect, disconnect_handler_of, tell_disconnected
from jararaca_ws.inbound.dispatching import Dispatch, DispatchOptions
from jararaca_ws.inbound.documented import Documented
from jararaca_ws.inbound.hosts import admit, served_by
from jararaca_ws.inbound.marks import check_async, mark, marked
from jararaca_ws.inbound.message_work import Host, MessageWork
from jararaca_ws.inbound.openapi import HANDSHAKE_SUFFIX, HandshakeRoute, handshake_options
from jararaca_ws.inbound.receiving import InboundHandler, Receive, handler_of, sends_of
from jararaca_ws.inbound.websocket_routes import nameless
from jararaca_ws.interceptors.base import (
    DISCONNECT_MARK,
    ENDPOINT_MARK,
    RECEIVE_MARK,
    AppTransactionContext,
    WebSocketTransactionData,
)
from jararaca_ws.manager import SCOPE_KEY, WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.signatures import classes_asked, parameters_without_self
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import Room

__all__ = [
    "Endpoint",
    "WebSocketEndpoint",
    "admit",
    "check_paths",
    "endpoint_route",
    "endpoints_of",
    "handshake_route",
    "served_by",
]

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

    Where the controller has `Receive` methods, they handle what the client sends, from when the method has returned.
    The interceptors around the method have ended then, and each message has its own. An `OnDisconnect` method is
    called when a client has gone.

    Args:
        path: as in FastAPI.
        accept: False when the method accepts by itself, with ``connection.accept()``: after it has joined its rooms,
            say, so that a browser misses nothing that is sent once it is connected.
        name: of the route, for ``url_path_for``.
        dependencies: FastAPI dependencies that run before the method; one that raises refuses the handshake.
        concurrency: how many messages of one client are handled at once; 1 keeps their order.
        discriminator: the field that says the class of a message, where clients send no envelopes.
        binary: what clients send, and what handlers return, are binary frames.
        timeout: how long a `Receive` method may take for one message; None: as ``handler_timeout`` of the settings
            says, 30 s; ``timedelta.max``: as long as it likes.
        client_rooms: the classes of rooms that clients may join and leave by themselves, with ``jararaca.join`` and
            ``jararaca.leave``; the room's `Room.authorize` is asked each time.
        client_sends: the types of messages that a client may send, with ``jararaca.send``, to a room of these classes
            while it is in it.
        authenticate: who the client is: an ``async def`` function that gets the `PresentedToken` and what else a
            FastAPI function may have, and returns a `User`; None refuses. Asked before anything else. None: nobody
            asks. What is not given here is as the interceptor has it.
        token_from: where the token is looked for; in the ``Authorization`` header and the subprotocols by default.
        allowed_origins: of pages, ``https://app.example.com``; ``"*"`` for all. Has to be given for a `CookieToken`.
        sends: for the OpenAPI document only: what clients may be sent, beside what ``client_rooms`` carry. Messages,
            other pydantic models, or classes of rooms for all that they carry.
        include_in_schema: whether the endpoint and its messages are in the OpenAPI document.

    Raises:
        ConfigurationError: at once, for a function that is not ``async def``, and for rooms and messages that are none.
    """

    def __init__(
        self,
        path: str = "",
        *,
        accept: bool = True,
        name: str | None = None,
        dependencies: Sequence[params.Depends] = (),
        concurrency: int = 1,
        discriminator: str | None = None,
        binary: bool = False,
        timeout: timedelta | None = None,
        client_rooms: Sequence[type[Room[Any]]] = (),
        client_sends: Sequence[type[WebSocketMessage]] = (),
        authenticate: Authenticate | Inherited | None = INHERITED,
        token_from: Sequence[TokenSource] | None = None,
        allowed_origins: AllowedOrigins | None = None,
        sends: Sequence[type[BaseModel]] = (),
        include_in_schema: bool = True,
    ) -> None:
        if not isinstance(path, str):
            raise ConfigurationError("@WebSocketEndpoint was used without a path", 'write @WebSocketEndpoint("/path")')
        self.path = path
        self.accept = accept
        self.name = name
        self.dependencies = dependencies
        self.options = DispatchOptions(
            concurrency=concurrency, discriminator=discriminator, binary=binary, timeout=timeout
        )
        self.client_rooms = ClientRooms.of(client_rooms, client_sends)
        self.access = StatedAccess(authenticate, token_from, allowed_origins)
        self.sends = sends_of(sends)
        self.include_in_schema = include_in_schema

    def __call__(self, function: _F) -> _F:
        check_async(function, "a @WebSocketEndpoint")
        if hasattr(function, ENDPOINT_MARK):
            raise ConfigurationError(f"{_name(function)} is a @WebSocketEndpoint twice", "write a method for each path")
        mark(function, ENDPOINT_MARK, self)
        return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One `@WebSocketEndpoint` method of one controller.

    Attributes:
        path: the whole path, that of the controller included.
        dispatch: None where no `Receive` method handles what clients send.
        documented: what the OpenAPI document says of it.
        disconnected: None where nothing is called when a client has gone.
    """

    path: str
    controller: type
    function: Callable[..., Awaitable[None]]
    spec: WebSocketEndpoint
    dispatch: Dispatch | None = None
    documented: Documented
    disconnected: InboundHandler | None = None


def endpoints_of(controller: type, join: Callable[[str], str]) -> list[Endpoint]:
    """The endpoints of a controller, inherited ones included; ``join`` makes a whole path of an endpoint's path.

    Raises:
        ConfigurationError: a ``@Receive`` method belongs to none of them, or cannot be called.
    """
    found = [
        Endpoint(
            path=join(spec.path),
            controller=controller,
            function=function,
            spec=spec,
            documented=Documented(options=spec.options, sends=spec.sends, client_rooms=spec.client_rooms),
        )
        for function, spec in marked(controller, ENDPOINT_MARK, WebSocketEndpoint)
    ]
    return _with_disconnects(controller, _with_receivers(controller, found))


def _with_receivers(controller: type, endpoints: list[Endpoint]) -> list[Endpoint]:
    by_name: dict[str, list[InboundHandler]] = {one.function.__name__: [] for one in endpoints}
    for function, spec in marked(controller, RECEIVE_MARK, Receive):
        endpoint = _endpoint_of(function, spec, endpoints)
        by_name[endpoint.function.__name__].append(
            handler_of(
                function,
                spec.message_type,
                controller=controller,
                dependencies=spec.dependencies,
                path=endpoint.path,
                authorize=spec.authorize,
                sends=spec.sends,
                timeout=spec.timeout,
            )
        )
    for one in endpoints:
        one.documented.handlers.extend(by_name[one.function.__name__])
    return [
        replace(one, dispatch=Dispatch(_name(one.function), controller, handlers, one.spec.options))
        if (handlers := by_name[one.function.__name__])
        else one
        for one in endpoints
    ]


def _with_disconnects(controller: type, endpoints: list[Endpoint]) -> list[Endpoint]:
    by_name = {one.function.__name__: one for one in endpoints}
    for function, spec in marked(controller, DISCONNECT_MARK, OnDisconnect):
        endpoint = _endpoint_of(function, spec, list(by_name.values()))
        if endpoint.disconnected is not None:
            raise ConfigurationError(
                f"both {_name(endpoint.disconnected.function)} and {_name(function)} are @OnDisconnect of "
                f"{_name(endpoint.function)}",
                "leave one of them out",
            )
        hook = disconnect_handler_of(
            function, controller=controller, dependencies=spec.dependencies, path=endpoint.path
        )
        by_name[endpoint.function.__name__] = replace(endpoint, disconnected=hook)
    return list(by_name.values())


def _endpoint_of(function: Callable[..., Any], spec: Receive | OnDisconnect, endpoints: list[Endpoint]) -> Endpoint:
    named = [one for one in endpoints if spec.endpoint in (None, one.function.__name__)]
    if len(named) == 1:
        return named[0]
    mark = type(spec).__name__
    wanted = "no @WebSocketEndpoint" if spec.endpoint is None else f"no @WebSocketEndpoint {spec.endpoint!r}"
    raise ConfigurationError(
        f"{_name(function)} is @{mark}, and its controller has {'several endpoints' if named else wanted}",
        f"name one: @{mark}(..., endpoint='method')" if named else "add it, and write it as its method's name",
    )


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def check_paths(endpoints: Sequence[Endpoint]) -> None:
    """Refuse a second endpoint on a path; the names of path parameters make no difference.

    Raises:
        DuplicateEndpoint: names both methods.
    """
    seen: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        first = seen.setdefault(nameless(endpoint.path), endpoint)
        if first is not endpoint:
            raise DuplicateEndpoint(endpoint.path, first.function, endpoint.function)


def endpoint_route(
    endpoint: Endpoint, *, manager: WebSocketConnectionManager, host: Host, access: Access = PUBLIC
) -> APIWebSocketRoute:
    """The route that serves an endpoint; ``access`` is what it has where it does not say itself who may connect.

    One unit of work of the host goes around the endpoint, FastAPI's dependencies included, and one around each message
    that a `Receive` method handles; within them, it builds the controller.

    Raises:
        ConfigurationError: the path cannot be served, or who may connect is not said as it must be.
        DuplicateRoomPattern: its clients may join rooms of a class that makes the names of another.
    """
    manager.room_classes.add(*endpoint.spec.client_rooms.rooms)
    try:
        route = APIWebSocketRoute(
            endpoint.path,
            _without_self(endpoint, manager, host.build),
            name=endpoint.spec.name or endpoint.function.__name__,
            dependencies=endpoint.spec.dependencies,
        )
    except (AssertionError, ValueError) as error:  # starlette's way to say that a path is none
        raise ConfigurationError(f"the WebSocket path {endpoint.path!r} cannot be served ({error})") from error
    where = _name(endpoint.function)
    door = Door(endpoint.spec.access.over(access, where), where, endpoint.path)
    route.app = _served(route.app, endpoint, manager, host, door)
    return route


def handshake_route(
    endpoint: Endpoint, route: APIWebSocketRoute, *, tags: Sequence[str | Enum] = (), include_in_schema: bool = True
) -> HandshakeRoute:
    """What stands for an endpoint in the OpenAPI document."""
    options = handshake_options(
        endpoint.documented,
        name=endpoint.function.__name__,
        description=endpoint.function.__doc__,
        asking=endpoint.documented.handlers,
        dependencies=route.dependencies,
    )
    return HandshakeRoute(
        endpoint.path + HANDSHAKE_SUFFIX,
        route.endpoint,
        **options,
        tags=list(tags),
        include_in_schema=include_in_schema and endpoint.spec.include_in_schema,
    )


def _served(app: ASGIApp, endpoint: Endpoint, manager: WebSocketConnectionManager, host: Host, door: Door) -> ASGIApp:
    """FastAPI's application for one route, between our receive and our send."""

    def unit_of_work(websocket: WebSocket, message: BaseModel | None = None) -> AbstractAsyncContextManager[None]:
        data = WebSocketTransactionData(websocket=websocket, connection=websocket.scope[SCOPE_KEY], message=message)
        return host.unit_of_work(
            AppTransactionContext(transaction_data=data, controller=endpoint.controller, handler=endpoint.function)
        )

    async def served(scope: Scope, receive: Receives, send: Send) -> None:
        socket = served_by(manager, scope, receive, send)
        connection = socket.connection
        let_in = False

        async def handle() -> None:
            nonlocal let_in
            await admit(manager, connection)
            await door.let_in(connection, manager)
            let_in = True
            async with unit_of_work(connection.websocket):
                await app(scope, socket.receive, socket.send)
            if endpoint.dispatch is not None and connection.accepted:
                await endpoint.dispatch.serve(connection, host)

        connection.around = unit_of_work
        try:
            async with RoomRequests(connection, manager, endpoint.spec.client_rooms, unit_of_work):
                await socket.run(handle)
        finally:
            connected = let_in and connection.accepted and not socket.refused
            if connected and endpoint.disconnected is not None:
                await tell_disconnected(MessageWork(connection, host, endpoint.controller), endpoint.disconnected)

    return served


def _without_self(
    endpoint: Endpoint, manager: WebSocketConnectionManager, build: Callable[[type], Any]
) -> Callable[..., Awaitable[None]]:
    """The function that FastAPI sees: the method's parameters but for `self` and the connection."""
    function = endpoint.function
    parameters, _ = parameters_without_self(function)
    asked = {one.name: classes_asked(_name(function), one, WebSocketConnection, WebSocket) for one in parameters}
    connections = [name for name, classes in asked.items() if WebSocketConnection in classes]
    sockets = [name for name, classes in asked.items() if WebSocket in classes]
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
        if connections or endpoint.dispatch is not None:
            connection.websocket = websocket
            # Who asks for nothing but FastAPI's WebSocket accepts it.
            if endpoint.spec.accept and (connections or not sockets):
                await connection.accept()
            await manager.add_websocket(connection)
        await function(build(endpoint.controller), **values, **dict.fromkeys(connections, connection))

    served.__signature__ = inspect.Signature(visible)  # type: ignore[attr-defined]
    served.__name__ = function.__name__
    served.__qualname__ = function.__qualname__
    served.__module__ = function.__module__
    served.__doc__ = function.__doc__
    return served
