"""The shapes of an interceptor and of what it is told, those of the Jararaca framework.

This module stands on floor 0 (it imports nothing of ours): the microservice stack and the message bus both run
interceptors, and only the interceptors themselves know both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from fastapi import Request, WebSocket
from starlette.routing import BaseRoute

__all__ = [
    "AppInterceptor",
    "AppInterceptorWithLifecycle",
    "AppTransactionContext",
    "DISCONNECT_MARK",
    "ENDPOINT_MARK",
    "HANDLER_MARK",
    "HttpTransactionData",
    "InterceptorWithRoutes",
    "InterceptorWithOpenApi",
    "InterceptorWithRefusals",
    "InterceptorWithWork",
    "MessageBusTransactionData",
    "RECEIVE_MARK",
    "Runtime",
    "SERVED_BY",
    "TransactionData",
    "WebSocketTransactionData",
    "is_endpoint",
]


ENDPOINT_MARK = "__jararaca_ws_endpoint__"
HANDLER_MARK = "__jararaca_ws_message_handler__"
RECEIVE_MARK = "__jararaca_ws_receive__"
DISCONNECT_MARK = "__jararaca_ws_disconnect__"
SERVED_BY = {
    ENDPOINT_MARK: ("a @WebSocketEndpoint", "WebSocketInterceptor"),
    HANDLER_MARK: ("a @MessageHandler", "MessageBusInterceptor"),
}
"""Attributes of methods that need an interceptor: one that has the mark as its attribute ``serves``, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTransactionData:
    """One HTTP request."""

    request: Request
    context_type: Literal["http"] = "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBusTransactionData:
    """One delivery of one bus message to one handler.

    Attributes:
        topic: the message's ``MESSAGE_TOPIC``.
        message: the `MessageOf` that the handler gets.
        message_id: stays the same when the message is delivered again.
        attempt: 1 on the first delivery.
    """

    topic: str
    message: Any
    message_id: str
    attempt: int
    context_type: Literal["message_bus"] = "message_bus"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketTransactionData:
    """One message that came through a WebSocket; or its endpoint, from the handshake until the method returns.

    Attributes:
        connection: the `WebSocketConnection`.
        message: what the handler gets, or what the client sends to a room or asks of rooms by itself; None for the
            endpoint itself, and where a router's client comes and goes.
    """

    websocket: WebSocket
    connection: Any = None
    message: Any = None
    context_type: Literal["websocket"] = "websocket"


TransactionData = HttpTransactionData | MessageBusTransactionData | WebSocketTransactionData


def is_endpoint(data: TransactionData) -> bool:
    """Whether it is a WebSocket endpoint, which lasts as long as a socket may, so that nothing waits for its end."""
    return data.context_type == "websocket" and data.message is None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppTransactionContext:
    """What an interceptor is told of the unit of work that it goes around.

    Attributes:
        transaction_data: ``.context_type`` is ``"http"``, ``"message_bus"`` or ``"websocket"``.
        controller: the class whose method will run.
        handler: that method, as the function that the class holds.
    """

    transaction_data: TransactionData
    controller: type
    handler: Callable[..., Any]


class AppInterceptor(Protocol):
    """Code around every unit of work."""

    def intercept(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]:
        """Go around one unit of work. Interceptors nest: the first of the list is the outermost.

        An exception of the body (cancellation included) passes through as through nested ``async with``; one that
        is raised after the body fails the unit of work.
        """
        ...


@runtime_checkable
class AppInterceptorWithLifecycle(Protocol):
    """An interceptor that has something to start and to stop with the application."""

    def lifecycle(self, app: Any, container: Any) -> AbstractAsyncContextManager[None]:
        """Go around the life of the application; entered in the order of the list, left in reverse.

        Args:
            app: the `Microservice`.
            container: its `Container`.
        """
        ...


class Runtime(Protocol):
    """A microservice that is being served or worked: what the two hooks below are given."""

    @property
    def controllers(self) -> Sequence[type]: ...

    @property
    def name(self) -> str: ...

    @property
    def interceptors(self) -> Sequence[AppInterceptor]: ...

    def build(self, controller: type) -> Any:
        """A new instance of a controller, for one unit of work."""
        ...

    def unit_of_work(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]:
        """The whole interceptor chain, around one unit of work."""
        ...


@runtime_checkable
class InterceptorWithRoutes(Protocol):
    """An interceptor that adds routes to the HTTP server."""

    def http_routes(self, runtime: Runtime) -> Sequence[BaseRoute]:
        """Called once for each HTTP server, while it is being created.

        Raises:
            ConfigurationError: the routes clash, or cannot be built.
        """
        ...


@runtime_checkable
class InterceptorWithOpenApi(Protocol):
    """An interceptor that has something to say in the OpenAPI document."""

    def extend_openapi(self, document: dict[str, Any]) -> None:
        """Called with the document each time it is asked for; what was added to it before is there."""
        ...


@runtime_checkable
class InterceptorWithRefusals(Protocol):
    """An interceptor that knows how handshakes are refused."""

    async def refuse(self, websocket: WebSocket, error: Exception) -> None:
        """Called with a ``WebSocketException`` or a `JararacaError` that has left a WebSocket route.

        Raises:
            Exception: the error, where it is not for this one to answer.
        """
        ...


@runtime_checkable
class InterceptorWithWork(Protocol):
    """An interceptor that does work of its own in the serving process."""

    def working(self, runtime: Runtime) -> AbstractAsyncContextManager[None]:
        """Entered when every lifecycle is up, left before the first of them goes down."""
        ...
