"""The context variables: what an interceptor binds for one unit of work, and how code in it gets at that.

A variable bound here is seen by the code of the unit of work and by the tasks it starts (they copy the context),
and by nothing else: concurrent requests never see each other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from jararaca_ws.errors import NotBound

if TYPE_CHECKING:
    from jararaca_ws.manager import WebSocketConnectionManager
    from jararaca_ws.messagebus.message import Message
    from jararaca_ws.messages import WebSocketMessageBase
    from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = [
    "MessagePublisher",
    "WebSocketMessageSender",
    "provide_bus",
    "provide_publisher",
    "provide_ws_manager",
    "provide_ws_message_sender",
    "use_bus",
    "use_publisher",
    "use_ws_manager",
    "use_ws_message_sender",
]


class WebSocketMessageSender(Protocol):
    """What `WebSocketMessage.send` hands its message to: a stage in a unit of work, or the manager itself."""

    async def send(
        self, rooms: Sequence[str], message: WebSocketMessageBase, *, exclude: WebSocketConnection | str | None = None
    ) -> None: ...


class MessagePublisher(Protocol):
    """What `Message.publish` hands its message to: a stage in a unit of work, or the bus itself."""

    async def publish(self, message: Message) -> None: ...


_T = TypeVar("_T")

_manager: ContextVar[WebSocketConnectionManager] = ContextVar("jararaca_ws_manager")
_sender: ContextVar[WebSocketMessageSender] = ContextVar("jararaca_ws_message_sender")
_publisher: ContextVar[MessagePublisher] = ContextVar("jararaca_ws_publisher")
_bus: ContextVar[MessagePublisher] = ContextVar("jararaca_ws_bus")

_WS_CURE = (
    "put a WebSocketInterceptor into the Microservice's interceptors, or install(app) it in a FastAPI application of "
    "your own; in scripts, and where the unit of work is over "
    "(a background task of FastAPI, a streamed body, what follows the yield of a dependency), run the code inside "
    "`with provide_ws_manager(manager):`, with the manager that use_ws_manager() gave before"
)
_BUS_CURE = (
    "put a MessageBusInterceptor into the Microservice's interceptors; in scripts, and where the unit of work is over "
    "(a background task of FastAPI, a streamed body, what follows the yield of a dependency), run the code inside "
    "`with provide_bus(bus):`, with the bus that use_bus() gave before"
)


def use_ws_manager() -> WebSocketConnectionManager:
    """The connection manager of this instance. What it sends leaves at once, staged or not.

    Raises:
        NotBound: outside of a unit of work, where nothing has bound a manager.
    """
    try:
        return _manager.get()
    except LookupError:
        raise NotBound("WebSocket connection manager", _WS_CURE) from None


def use_ws_message_sender() -> WebSocketMessageSender:
    """What `WebSocketMessage.send` uses: the stage of this unit of work, or else the manager.

    Raises:
        NotBound: outside of a unit of work, where nothing has bound a manager.
    """
    sender = _sender.get(None)
    return use_ws_manager() if sender is None else sender


def use_publisher() -> MessagePublisher:
    """What `Message.publish` uses: the stage of this unit of work, or else the bus.

    Raises:
        NotBound: outside of a unit of work, where nothing has bound a message bus.
    """
    publisher = _publisher.get(None)
    return use_bus() if publisher is None else publisher


def use_bus() -> MessagePublisher:
    """The message bus itself. What it publishes leaves at once, staged or not.

    Raises:
        NotBound: outside of a unit of work, where nothing has bound a message bus.
    """
    try:
        return _bus.get()
    except LookupError:
        raise NotBound("message bus", _BUS_CURE) from None


class _Bound(Generic[_T]):
    """A variable bound in a block. Not a generator: each message of a client enters some."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[_T], value: _T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._variable.reset(self._token)


def provide_ws_manager(manager: WebSocketConnectionManager) -> AbstractContextManager[None]:
    """Bind the manager, as the `WebSocketInterceptor` does: for scripts, background tasks and tests."""
    return _Bound(_manager, manager)


def provide_ws_message_sender(sender: WebSocketMessageSender) -> AbstractContextManager[None]:
    """Bind what `WebSocketMessage.send` hands its messages to, in place of the manager."""
    return _Bound(_sender, sender)


def provide_bus(bus: MessagePublisher) -> AbstractContextManager[None]:
    """Bind the message bus, as the `MessageBusInterceptor` does: for scripts, background tasks and tests."""
    return _Bound(_bus, bus)


def provide_publisher(publisher: MessagePublisher) -> AbstractContextManager[None]:
    """Bind what `Message.publish` hands its messages to, in place of the bus."""
    return _Bound(_publisher, publisher)
