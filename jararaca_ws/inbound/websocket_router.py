"""`WebSocketRouter`: typed messages without a controller, included in an application as any router of FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, WebSocket, params
from pydantic import BaseModel

from jararaca_ws.auth.access import INHERITED, Access, AllowedOrigins, Authenticate, Inherited, StatedAccess
from jararaca_ws.auth.door import Door
from jararaca_ws.auth.sources import TokenSource
from jararaca_ws.errors import ConfigurationError, DuplicateEndpoint
from jararaca_ws.inbound.client_rooms import ClientRooms, RoomRequests
from jararaca_ws.inbound.disconnecting import disconnect_handler_of, tell_disconnected
from jararaca_ws.inbound.dispatching import Dispatch, Dispatcher, DispatchOptions, Fallback
from jararaca_ws.inbound.documented import Documented
from jararaca_ws.inbound.hosts import WebSockets, admit, check_hosted, interceptor_of, runtime_of, served_by
from jararaca_ws.inbound.marks import check_async
from jararaca_ws.inbound.message_dependencies import close_dependencies
from jararaca_ws.inbound.message_work import MessageWork
from jararaca_ws.inbound.openapi import HANDSHAKE_SUFFIX, HandshakeRoute, handshake_options
from jararaca_ws.inbound.receiving import (
    Authorize,
    InboundHandler,
    check_authorize,
    check_dispatcher,
    check_received,
    check_takes,
    check_timeout,
    handler_of,
    sends_of,
)
from jararaca_ws.inbound.websocket_routes import nameless, websocket_routes
from jararaca_ws.interceptors.base import Runtime
from jararaca_ws.manager import SCOPE_KEY, WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import Room
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["WebSocketRouter"]

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])
_OnFallback = TypeVar("_OnFallback", bound=Fallback)


class WebSocketRouter(APIRouter):
    """Serve WebSockets on a path, and handle the typed messages of their clients, with plain functions::

        router = WebSocketRouter()

        @router.receive(ChatPosted)
        async def posted(message: ChatPosted, connection: WebSocketConnection) -> None: ...

        app.include_router(router, prefix="/ws")

    The application is one with a `WebSocketInterceptor`. Handlers are as the methods of `Receive`: a unit of work for
    each message, FastAPI's parameters and dependencies, a reply. A router may include others, as for HTTP; one that
    has no handlers and hooks serves nothing itself. ``dependencies=`` of the router and of ``include_router`` run
    before the handshake is answered, and are closed when it has been.

    Args:
        path: below the prefixes.
        name: of the route, for ``url_path_for``.
        discriminator: the field that says the class of a message, where clients send no envelopes.
        dispatcher: is given every message as it came, with the connection and the handlers by class, and calls which
            it wants: ``await handlers[ChatPosted](connection, message)``. What it returns goes back.
        concurrency: how many messages of one client are handled at once; 1 keeps their order.
        binary: what clients send, and what handlers return, are binary frames.
        timeout: how long a handler may take for one message; None: as ``handler_timeout`` of the settings says, 30 s;
            ``timedelta.max``: as long as it likes.
        client_rooms, client_sends: what clients may do with rooms by themselves: see `WebSocketEndpoint`.
        authenticate, token_from, allowed_origins: who may connect: see `WebSocketEndpoint`.
        sends: for the OpenAPI document only: what clients may be sent. Messages, other pydantic models, or classes of
            rooms for all that they carry.
        router_options: what else an ``APIRouter`` takes (``prefix=``, ``dependencies=``, ``include_in_schema=``, ...).

    Raises:
        ConfigurationError: a ``concurrency`` below 1; a ``timeout`` that is none; both a ``discriminator`` and a
            ``dispatcher``; rooms and messages that are none; a path without its slash; later, a second hook.
    """

    def __init__(
        self,
        path: str = "",
        *,
        name: str | None = None,
        discriminator: str | None = None,
        dispatcher: Dispatcher | None = None,
        concurrency: int = 1,
        binary: bool = False,
        timeout: timedelta | None = None,
        client_rooms: Sequence[type[Room[Any]]] = (),
        client_sends: Sequence[type[WebSocketMessage]] = (),
        authenticate: Authenticate | Inherited | None = INHERITED,
        token_from: Sequence[TokenSource] | None = None,
        allowed_origins: AllowedOrigins | None = None,
        sends: Sequence[type[BaseModel]] = (),
        **router_options: Any,
    ) -> None:
        super().__init__(**router_options)
        if dispatcher is not None and discriminator is not None:
            raise ConfigurationError("a dispatcher decodes by itself", "leave discriminator= out")
        if dispatcher is not None:
            check_dispatcher(dispatcher)
        if path and not path.startswith("/"):  # a route that no request would find
            raise ConfigurationError(f"the path of a WebSocketRouter is {path!r}", "begin it with a slash")
        self._path = path
        self._name = name
        self._options = DispatchOptions(
            discriminator=discriminator, concurrency=concurrency, binary=binary, timeout=timeout
        )
        self._client_rooms = ClientRooms.of(client_rooms, client_sends)
        self._dispatcher = dispatcher
        self._handlers: list[InboundHandler] = []
        self._documented = Documented(
            handlers=self._handlers,
            options=self._options,
            dispatched=dispatcher is not None,
            sends=sends_of(sends),
            client_rooms=self._client_rooms,
        )
        self._connecting: InboundHandler | None = None
        self._disconnected: InboundHandler | None = None
        self._fallback: Fallback | None = None
        # None until it is needed, and again when a handler was added.
        self._dispatch: Dispatch | None = None
        self._serves = False
        self._access = StatedAccess(authenticate, token_from, allowed_origins)
        # For each application that it is included in: what is not said here is as its interceptor has it.
        self._doors: dict[Access, Door] = {}
        self.lifespan_context = self._checked(self.lifespan_context)
        if dispatcher is not None:
            self._serve()

    # --- what is written down -----------------------------------------------------------------------------------------

    def receive(
        self,
        message_type: type[BaseModel],
        *,
        dependencies: Sequence[params.Depends] = (),
        authorize: Authorize | None = None,
        sends: Sequence[type[BaseModel]] = (),
        timeout: timedelta | None = None,
    ) -> Callable[[_F], _F]:
        """Handle the messages of one class: see `Receive`.

        Raises:
            ConfigurationError: what cannot be received, or a function that cannot be called for it.
        """
        check_received(message_type)
        check_authorize(authorize)
        check_timeout(timeout)
        sent = sends_of(sends)

        def mark(function: _F) -> _F:
            check_async(function, "a message handler")
            handler = handler_of(
                function, message_type, dependencies=dependencies, authorize=authorize, sends=sent, timeout=timeout
            )
            self._handlers.append(handler)
            self._serve()
            return function

        return mark

    def on_connect(self, function: _F) -> _F:
        """Call a function when a client wants to connect, before the handshake is answered.

        It has the parameters of a message handler, without a message. Joins what it joins, and may accept; otherwise
        the client is accepted when it returns. ``WebSocketException`` and ``HTTPException`` refuse the handshake. What
        it sends leaves at once.
        """
        check_async(function, "on_connect")
        _check_only("on_connect", self._connecting)
        self._connecting = handler_of(function, None)
        self._serve()
        return function

    def on_disconnect(self, function: _F) -> _F:
        """Call a function when a client that was connected has gone: see `OnDisconnect`.

        It has the parameters of a message handler, and ``code: int`` and ``reason: str`` in place of a message.
        """
        check_async(function, "on_disconnect")
        _check_only("on_disconnect", self._disconnected)
        self._disconnected = disconnect_handler_of(function)
        self._serve()
        return function

    def on_fallback(self, function: _OnFallback) -> _OnFallback:
        """Call a function with the connection, what came, and the `InvalidMessage`, where that is none of the messages.

        Pydantic's error is its ``__cause__``. It is no strike then, so nothing closes the connection by itself. What
        the function returns goes back. It is a unit of work, as a message handler.
        """
        check_async(function, "on_fallback")
        check_takes(function, "on_fallback", "the connection, what came and the error")
        _check_only("on_fallback", self._fallback)
        self._fallback = function
        self._serve()
        return function

    @property
    def function(self) -> Callable[..., Any]:
        """The first of its functions, which names it in errors; there is one where it serves something."""
        handlers = [one for one in (*self._handlers, self._connecting, self._disconnected) if one is not None]
        functions = [*(one.function for one in handlers), self._fallback, self._dispatcher]
        return next(one for one in functions if one is not None)

    def _serve(self) -> None:
        self._dispatch = None
        self._describe()
        if self._serves:
            return
        self._serves = True
        # FastAPI makes this route anew wherever the router is included: all that it keeps is this method.
        self.add_api_websocket_route(self._path, self._serve_websocket, name=self._name or "websocket")

    def _describe(self) -> None:
        """Have the OpenAPI document say what there is now."""
        before = [one for one in self.routes if isinstance(one, HandshakeRoute) and one.describes(self._documented)]
        for route in before:
            self.routes.remove(route)
        connecting = [] if self._connecting is None else [self._connecting]
        options = handshake_options(
            self._documented,
            name=self._name or "websocket",
            description=connecting[0].function.__doc__ if connecting else None,
            asking=[*connecting, *self._handlers],
        )

        async def handshake() -> None: ...

        self.add_api_route(self._path + HANDSHAKE_SUFFIX, handshake, route_class_override=HandshakeRoute, **options)

    def _built(self) -> Dispatch:
        if self._dispatch is None:
            self._dispatch = Dispatch(
                f"the WebSocketRouter {self.prefix}{self._path}",
                type(self),
                self._handlers,
                self._options,
                fallback=self._fallback,
                dispatcher=self._dispatcher,
            )
        return self._dispatch

    def _door(self, interceptor: WebSockets) -> Door:
        default = interceptor.door.access
        if default not in self._doors:
            where = f"the WebSocketRouter {self.prefix}{self._path}"
            self._doors[default] = Door(self._access.over(default, where), where)
        return self._doors[default]

    def _checked(self, lifespan: Any) -> Any:
        """Refuse at the start of the application what would fail at the first client."""

        @asynccontextmanager
        async def checked(app: Any) -> AsyncIterator[Any]:
            if self._serves:
                check_hosted(app)
                _check_alone(app)
                self._built()
                self._door(interceptor_of(app.state.jararaca_ws_runtime))
            async with lifespan(app) as state:
                yield state

        return checked

    # --- one client ---------------------------------------------------------------------------------------------------

    async def _serve_websocket(self, websocket: WebSocket) -> None:
        runtime = runtime_of(websocket)
        interceptor = interceptor_of(runtime)
        connection = websocket.scope.get(SCOPE_KEY)
        if isinstance(connection, WebSocketConnection):  # the whole application is served by us
            connection.websocket = websocket
            await self._handle(connection, websocket, interceptor, runtime)
            return
        # What the server gave, as starlette keeps it: its own methods check for states that are ours to check.
        socket = served_by(interceptor.manager, websocket.scope, websocket._receive, websocket._send)

        async def handle() -> None:
            await admit(interceptor.manager, socket.connection)
            await self._handle(socket.connection, websocket, interceptor, runtime)

        await socket.run(handle)

    async def _handle(
        self,
        connection: WebSocketConnection,
        websocket: WebSocket,
        interceptor: WebSockets,
        runtime: Runtime,
    ) -> None:
        manager = interceptor.manager
        await self._door(interceptor).let_in(connection, manager)
        work = MessageWork(connection, runtime, type(self))
        connection.around = around = partial(self._around, work)
        # Before the client is accepted: what it sends then is read at once.
        async with RoomRequests(connection, manager, self._client_rooms, around):
            await self._connect(work, manager)
            try:
                await close_dependencies(websocket)
                await self._built().serve(connection, runtime)
                await connection.closed.wait()
            except asyncio.CancelledError:
                connection.begin_close(CloseCode.SERVICE_RESTART, "")
                raise
            finally:
                if self._disconnected is not None:
                    await tell_disconnected(work, self._disconnected)

    def _around(
        self, work: MessageWork, websocket: WebSocket, message: BaseModel | None = None
    ) -> AbstractAsyncContextManager[None]:
        hook = self._connecting
        return work.unit_of_work(hook.function if hook else self._serve_websocket, message)

    async def _connect(self, work: MessageWork, manager: WebSocketConnectionManager) -> None:
        connection, hook = work.connection, self._connecting
        async with self._around(work, connection.websocket):
            await manager.add_websocket(connection)
            if hook is not None:
                await hook.call(connection, None)
            await connection.accept()


def _check_only(hook: str, before: Any) -> None:
    if before is not None:
        raise ConfigurationError(f"the WebSocketRouter has an {hook} already", "call both functions in one")


def _check_alone(app: FastAPI) -> None:
    """Refuse two that serve one path, where one is a router: the second would never be called.

    Raises:
        DuplicateEndpoint: names a function of both.
    """
    seen: dict[str, Callable[..., Any]] = {}
    for path, endpoint in websocket_routes(app.routes):
        first = seen.setdefault(nameless(path), endpoint)
        if first != endpoint and (_is_router(first) or _is_router(endpoint)):
            raise DuplicateEndpoint(path, _named_by(first), _named_by(endpoint))


def _is_router(endpoint: Any) -> bool:
    return isinstance(getattr(endpoint, "__self__", None), WebSocketRouter)


def _named_by(endpoint: Any) -> Any:
    """What a user has written of it: the first of a router's functions."""
    return endpoint.__self__.function if _is_router(endpoint) else endpoint
