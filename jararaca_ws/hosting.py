"""A FastAPI application of the user's own as the host: its lifespan, its requests, its WebSockets."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from jararaca_ws.answering import add_answers, add_upgrade_answer
from jararaca_ws.auth.access import LET_IN_KEY, PUBLIC, AllowedOrigins, Authenticate, StatedAccess
from jararaca_ws.auth.door import Door, let_in_by
from jararaca_ws.auth.sources import TokenSource
from jararaca_ws.backends.base import Publication
from jararaca_ws.context import provide_ws_manager, provide_ws_message_sender, use_ws_manager
from jararaca_ws.errors import ConfigurationError, quoted
from jararaca_ws.inbound.hosts import RUNTIME_KEY, admit, interceptor_of, runtime_of, served_by
from jararaca_ws.interceptors.base import Runtime
from jararaca_ws.manager import SCOPE_KEY, WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.microservice.openapi import extend_openapi
from jararaca_ws.microservice.runtime import MicroserviceRuntime
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.staging import Stage

__all__ = ["connection_by", "current_connection", "install"]


async def current_connection(websocket: HTTPConnection) -> WebSocketConnection:
    """The connection of this WebSocket: a FastAPI dependency, ``Depends(current_connection)``.

    It is known to the manager, so broadcasts reach it, and not accepted yet: that is the endpoint's to do, with
    ``connection.accept()`` or ``websocket.accept()``, after it has joined its rooms for example. Where the interceptor
    has an ``authenticate=``, the client was asked who it is: see `WebSocketConnection.user`.

    Raises:
        OriginNotAllowed, AuthenticationFailed: it may not connect.
        ConfigurationError: it is no WebSocket, or nothing of ours serves it.
        ConnectionClosed: the client has gone.
    """
    return await _connection(websocket, None)


def connection_by(
    authenticate: Authenticate | None,
    *,
    token_from: Sequence[TokenSource] | None = None,
    allowed_origins: AllowedOrigins | None = None,
) -> Callable[[HTTPConnection], Awaitable[WebSocketConnection]]:
    """`current_connection` for one route, in place of what the interceptor says of who may connect.

    ``Depends(connection_by(jwt_checker, token_from=[CookieToken("session")], allowed_origins=[...]))``, or
    ``Depends(connection_by(None))`` for everybody. Nothing is taken over from the interceptor. The arguments are those
    of a `WebSocketEndpoint`.

    Raises:
        ConfigurationError: at once, for what cannot be.
    """
    where = "connection_by()"
    door = Door(StatedAccess(authenticate, token_from, allowed_origins).over(PUBLIC, where), where)

    async def connection(websocket: HTTPConnection) -> WebSocketConnection:
        return await _connection(websocket, door)

    # FastAPI looks for names in a function's module; these are no strings.
    connection.__annotations__ = {"websocket": HTTPConnection, "return": WebSocketConnection}
    return connection


async def _connection(websocket: HTTPConnection, door: Door | None) -> WebSocketConnection:
    """``door`` is None where it is the interceptor's."""
    if not isinstance(websocket, WebSocket):
        raise ConfigurationError("an HTTP request has no connection", "use current_connection in WebSocket endpoints")
    connection = websocket.scope.get(SCOPE_KEY)
    if isinstance(connection, WebSocketConnection):
        # FastAPI's own object for this socket: it has to see who accepts.
        connection.websocket = websocket
        before = let_in_by(websocket.scope)
        if before is None:
            chosen = interceptor_of(runtime_of(websocket)).door if door is None else door
            await chosen.let_in(connection, use_ws_manager())
        elif door not in (None, before):  # it would not be asked, and the other one may let anybody in
            raise ConfigurationError(
                f"two dependencies say who may connect to {quoted(websocket.scope['path'])}",
                "give it one connection_by(), before every current_connection",
            )
    return await use_ws_manager().add_websocket(websocket)


def install(app: FastAPI, manager: WebSocketConnectionManager, runtime: MicroserviceRuntime) -> None:
    """Make an application the host of a microservice without controllers: see `WebSocketInterceptor.install`.

    Raises:
        ConfigurationError: it is one already, has started, or was made of a `Microservice`.
    """
    _check(app)
    app.state.jararaca_ws_manager = manager
    app.state.jararaca_ws_runtime = runtime
    add_answers(app.exception_handlers)
    add_upgrade_answer(app.router)
    extend_openapi(app, runtime)
    app.router.lifespan_context = _lifespan(app.router.lifespan_context, manager, runtime)
    # Around the router, and not as one of the application's middlewares: inside of all of those, so that none of them
    # puts the request into a task that does not see the context, and inside of the handling of exceptions.
    app.router.middleware_stack = _Host(app.router.middleware_stack, manager, runtime)


def _check(app: FastAPI) -> None:
    cure = "call install once, where the application is made"
    if hasattr(app.state, "jararaca_ws_manager"):
        raise ConfigurationError("a WebSocketInterceptor is installed in the application already", cure)
    if hasattr(app.state, "jararaca_ws_runtime"):
        raise ConfigurationError(
            "the application is made of a Microservice", "put the WebSocketInterceptor into its interceptors"
        )
    if app.middleware_stack is not None:
        raise ConfigurationError("the application has started already", cure)


def _lifespan(inner: Lifespan[Any], manager: WebSocketConnectionManager, runtime: MicroserviceRuntime) -> Lifespan[Any]:
    """The application's lifespan inside of ours: it sends from its first line to its last, and its tasks do."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:  # starlette has one type for None and one for a mapping
        extend_openapi(app, runtime)
        async with runtime.lifespan():
            with provide_ws_manager(manager):
                async with inner(app) as state:
                    yield state

    return lifespan


class _Host:
    """The router's application, with the manager bound around it."""

    def __init__(self, app: ASGIApp, manager: WebSocketConnectionManager, runtime: Runtime) -> None:
        self._app = app
        self._manager = manager
        self._runtime = runtime
        # Whether routes that say nothing themselves are for those alone that the interceptor lets in.
        self._asks = interceptor_of(runtime).door.access != PUBLIC

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _HostedRequest(self._manager, send).run(self._app, scope, receive)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        manager = self._manager
        socket = served_by(manager, scope, receive, send)
        scope[RUNTIME_KEY] = self._runtime
        if self._asks:
            scope[LET_IN_KEY] = False  # so a route that asks nobody takes nobody in

        async def handle() -> None:
            await admit(manager, socket.connection)
            with provide_ws_manager(manager):
                await self._app(scope, socket.receive, socket.send)

        await socket.run(handle)


class _HostedRequest:
    """One HTTP request, and what is sent in it: held back until its response starts, and at once from then on.

    The request has failed where the response comes out of an exception, or has an error status.
    """

    __slots__ = ("_around", "_failure", "_manager", "_send", "_stage", "_started")

    def __init__(self, manager: WebSocketConnectionManager, send: Send) -> None:
        self._manager = manager
        self._send = send
        self._stage: Stage[Publication] = Stage(
            "a message was sent", "the request has failed: use `await message.send_now(...)` there"
        )
        self._started = False
        # What is being handled around the whole request is none of its exceptions; mostly None.
        self._around = sys.exception()
        # None unless the flush has failed.
        self._failure: Exception | None = None

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        try:
            with provide_ws_manager(self._manager), provide_ws_message_sender(self):
                await app(scope, receive, self._respond)
        except Exception:
            if self._failure is None:
                raise
        finally:
            self._stage.end()
        if self._failure is not None:
            try:
                # To the handlers of the application: inside, starlette believes that the response has started.
                raise self._failure
            finally:
                self._failure = None  # it holds this frame, and the request with it

    async def _respond(self, message: Message) -> None:
        if self._failure is not None:
            raise self._failure
        if message["type"] == "http.response.start" and not self._started:
            # The handler of an exception is called, and its answer is sent, while that is being handled.
            raised = sys.exception() not in (None, self._around)
            await self._flush(succeeded=not raised and message["status"] < 400)
        await self._send(message)

    async def _flush(self, *, succeeded: bool) -> None:
        self._started = True
        publications = self._stage.end()
        if publications and succeeded:
            try:
                await self._manager.publish(publications)
            except Exception as error:
                self._failure = error
                raise

    async def send(
        self, rooms: Sequence[str], message: WebSocketMessageBase, *, exclude: WebSocketConnection | str | None = None
    ) -> None:
        """What `WebSocketMessage.send` calls."""
        if self._started:
            await self._manager.send(rooms, message, exclude=exclude)
            return
        publication = self._manager.prepare(rooms, message, exclude=exclude)
        self._stage.add(publication, len(publication.payload))
