"""What hosts a WebSocket: the runtime and the interceptor of its application, and the manager that takes it in."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from fastapi import WebSocket
from starlette.exceptions import HTTPException, WebSocketException
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketState

from jararaca_ws.auth.door import Door
from jararaca_ws.errors import ConfigurationError, JararacaError
from jararaca_ws.interceptors.base import ENDPOINT_MARK, Runtime
from jararaca_ws.manager import SCOPE_KEY, WebSocketConnectionManager
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.serving import ServedWebSocket

__all__ = [
    "RUNTIME_KEY",
    "WebSockets",
    "admit",
    "check_hosted",
    "interceptor_of",
    "refuse_unserved",
    "runtime_of",
    "served_by",
]

RUNTIME_KEY = "jararaca_ws.runtime"
"""Where the ASGI scope may hold the `Runtime`; else it is found in the state of the application."""


@runtime_checkable
class WebSockets(Protocol):
    """The part of a `WebSocketInterceptor` that is of use here."""

    manager: WebSocketConnectionManager
    door: Door


def check_hosted(app: Any) -> None:
    """Refuse an application that a router cannot be served in.

    Raises:
        ConfigurationError: it has no `WebSocketInterceptor`.
    """
    if not hasattr(app.state, "jararaca_ws_runtime"):
        raise ConfigurationError(
            "a WebSocketRouter is included in an application without a WebSocketInterceptor",
            "install(app) one; where a Microservice makes the application, put one into its interceptors",
        )


def runtime_of(websocket: WebSocket) -> Runtime:
    """Who runs the interceptors for a WebSocket.

    Raises:
        ConfigurationError: nobody of ours does.
    """
    if RUNTIME_KEY not in websocket.scope:
        check_hosted(websocket.app)
    found: Runtime = websocket.scope.get(RUNTIME_KEY) or websocket.app.state.jararaca_ws_runtime
    return found


def interceptor_of(runtime: Runtime) -> WebSockets:
    """The `WebSocketInterceptor`.

    Raises:
        ConfigurationError: there is none.
    """
    for interceptor in runtime.interceptors:
        if getattr(interceptor, "serves", None) == ENDPOINT_MARK and isinstance(interceptor, WebSockets):
            return interceptor
    raise ConfigurationError(
        f"{runtime.name} has a WebSocketRouter and no WebSocketInterceptor", "put one into its interceptors"
    )


def served_by(manager: WebSocketConnectionManager, scope: Scope, receive: Receive, send: Send) -> ServedWebSocket:
    """A WebSocket that the manager can take in; the scope holds its connection."""
    socket = ServedWebSocket(scope, receive, send, manager.settings, manager.flusher)
    socket.connection.bind(manager)
    scope[SCOPE_KEY] = socket.connection
    return socket


async def admit(manager: WebSocketConnectionManager, connection: WebSocketConnection) -> None:
    """Let a handshake go on; refuse one that would be closed again in a moment, or is one too many."""
    if manager.draining:
        raise HTTPException(503)
    await manager.admission.admit(connection)


async def refuse_unserved(manager: WebSocketConnectionManager, websocket: WebSocket, error: Exception) -> None:
    """Refuse a handshake as it would be if the route that has raised were served by us: its dependencies ran before.

    Raises:
        Exception: the error, where it is; where it is a failure; where the socket was accepted, and it says no code.
    """
    if SCOPE_KEY in websocket.scope or (isinstance(error, JararacaError) and error.is_internal):
        raise error
    # Somebody else has read the handshake, which comes once, and may have answered it.
    if not websocket.client_state is websocket.application_state is WebSocketState.CONNECTING:
        if not isinstance(error, WebSocketException):
            raise error
        await websocket.close(error.code, error.reason)  # as starlette does
        return
    socket = served_by(manager, websocket.scope, websocket._receive, websocket._send)

    async def refuse() -> None:
        await admit(manager, socket.connection)
        raise error

    await socket.run(refuse)
