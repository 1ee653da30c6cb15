"""`@Receive`: which functions handle which messages, and what each of them asks for."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MethodType
from typing import Any, TypeVar

from fastapi import WebSocket, params
from pydantic import BaseModel

from jararaca_ws.errors import ConfigurationError, PermissionDenied, named
from jararaca_ws.inbound.marks import check_async, mark
from jararaca_ws.inbound.message_dependencies import MessageDependencies
from jararaca_ws.interceptors.base import RECEIVE_MARK
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessageBase
from jararaca_ws.signatures import classes_asked, parameters_of, parameters_without_self
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.typed_rooms import Room

__all__ = [
    "Authorize",
    "InboundHandler",
    "Receive",
    "carried_by",
    "check_authorize",
    "check_dispatcher",
    "check_received",
    "check_takes",
    "check_timeout",
    "handler_of",
    "sends_of",
]

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])
_GIVEN = (WebSocketConnection, WebSocket)

Authorize = Callable[[WebSocketConnection, Any], Awaitable[bool]]
"""Takes the connection and the message; whether the client may send it."""


class Receive:
    """Handle the messages of one class, from the clients of a `WebSocketEndpoint`, with an ``async def`` method.

    The endpoint's method accepts, joins and returns; then the framework reads. Each message is a unit of work: a new
    controller, the interceptors around it, FastAPI's dependencies opened and closed. What the method sends is staged,
    and leaves when it succeeds. The messages of one client are handled one after another, in their order, unless the
    endpoint has another ``concurrency``. Between messages nothing is held.

    A method may have several of these, for messages of several classes.

    The method asks for what it needs by annotation: the message by its class, the `WebSocketConnection` or FastAPI's
    ``WebSocket``, and what a FastAPI function may have: path, query, header and cookie parameters of the handshake,
    ``Depends``. What it returns goes back as the reply, to a client that gave a ``ref``; without one only a message
    goes back, as it is. A method that raises has its unit of work dropped; the client is told ``jararaca.error``, and
    the connection goes on.

    Args:
        message_type: a `WebSocketMessage` class; any pydantic model where the endpoint has a ``discriminator``.
        endpoint: the name of the endpoint's method, where the controller has several.
        dependencies: FastAPI dependencies that run before the method; one that raises refuses the message.
        authorize: an ``async def`` function that is asked, with the connection and the message, before anything else;
            False refuses the message with ``permission_denied``.
        sends: for the OpenAPI document only: what the client may be sent on account of this message, beside the reply.
            Messages, other pydantic models, or classes of rooms for all that they carry.
        timeout: how long one message may take; None: as the endpoint says; ``timedelta.max``: as long as it likes.

    Raises:
        ConfigurationError: at once, for what cannot be received, and for a function that is not ``async def``.
    """

    def __init__(
        self,
        message_type: type[BaseModel],
        *,
        endpoint: str | None = None,
        dependencies: Sequence[params.Depends] = (),
        authorize: Authorize | None = None,
        sends: Sequence[type[BaseModel]] = (),
        timeout: timedelta | None = None,
    ) -> None:
        check_received(message_type)
        check_authorize(authorize)
        check_timeout(timeout)
        self.authorize = authorize
        self.message_type = message_type
        self.timeout = timeout
        self.endpoint = endpoint
        self.dependencies = dependencies
        self.sends = sends_of(sends)

    def __call__(self, function: _F) -> _F:
        check_async(function, "@Receive")
        mark(function, RECEIVE_MARK, self)
        return function


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundHandler:
    """A function that is called for what comes through a socket.

    Attributes:
        message_type: None where it is not called for a message.
        controller: the class that it is a method of; None where it is a plain function.
        dependencies: None where it asks FastAPI for nothing, and FastAPI is not asked.
        authorize: None where every client may send it.
        returns: its annotation; `inspect.Signature.empty` where it has none.
        sends: what it says that it sends, for documents.
        timeout: None: as the endpoint says.
        told: what it is told beside, by these names.
    """

    function: Callable[..., Awaitable[Any]]
    message_type: type[BaseModel] | None
    controller: type | None
    messages: tuple[str, ...]
    connections: tuple[str, ...]
    sockets: tuple[str, ...]
    dependencies: MessageDependencies | None
    returns: Any
    sends: tuple[type[BaseModel], ...]
    authorize: Authorize | None = None
    timeout: timedelta | None = None
    told: tuple[str, ...] = ()

    async def call(
        self,
        connection: WebSocketConnection,
        message: Any,
        build: Callable[[type], Any] | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call it, on a new controller where it is a method; returns what it does."""
        if self.authorize is not None and not await self.authorize(connection, message):
            raise PermissionDenied(type(message).__qualname__)
        target = self.function
        if self.controller is not None and build is not None:
            target = MethodType(target, build(self.controller))
        known = dict.fromkeys(self.messages, message)
        for name in self.connections:
            known[name] = connection
        for name in self.sockets:
            known[name] = connection.websocket
        if told is not None:
            known.update({name: told[name] for name in self.told})
        if self.dependencies is None:
            return await target(**known)
        return await self.dependencies.call(target, connection.websocket, known)


def handler_of(
    function: Callable[..., Awaitable[Any]],
    message_type: type[BaseModel] | None,
    *,
    controller: type | None = None,
    dependencies: Sequence[params.Depends] = (),
    path: str = "/",
    authorize: Authorize | None = None,
    sends: tuple[type[BaseModel], ...] = (),
    timeout: timedelta | None = None,
    told: Sequence[str] = (),
) -> InboundHandler:
    """A function, and what it asks for.

    Raises:
        ConfigurationError: it asks for what it cannot get.
    """
    # A class that was made in a function is in no module's namespace; we know it by its own name.
    names = {} if message_type is None else {message_type.__name__: message_type}
    parameters, returns = (parameters_of if controller is None else parameters_without_self)(function, names)
    where = f"{function.__module__}.{function.__qualname__}"
    asked = {
        one.name: classes_asked(where, one, *_GIVEN, *([message_type] if message_type else ())) for one in parameters
    }
    messages = [one for one in parameters if message_type is not None and _any_is(asked[one.name], message_type)]
    connections = [one for one in parameters if WebSocketConnection in asked[one.name]]
    sockets = [one for one in parameters if WebSocket in asked[one.name]]
    beside = [one for one in parameters if one.name in told]
    given = [*messages, *connections, *sockets, *beside]
    rest = [one for one in parameters if one not in given]
    _check_kinds(where, parameters)
    return InboundHandler(
        function=function,
        message_type=message_type,
        controller=controller,
        messages=tuple(one.name for one in messages),
        connections=tuple(one.name for one in connections),
        sockets=tuple(one.name for one in sockets),
        dependencies=MessageDependencies(where, rest, dependencies, path) if rest or dependencies else None,
        authorize=authorize,
        returns=returns,
        sends=sends,
        timeout=timeout,
        told=tuple(one.name for one in beside),
    )


def check_received(message_type: Any) -> None:
    """Refuse what is no class of messages."""
    if not (isinstance(message_type, type) and issubclass(message_type, BaseModel)):
        raise ConfigurationError(f"{message_type!r} cannot be received", "give a class of messages")


def check_authorize(authorize: Any) -> None:
    """Refuse what cannot say whether a message is allowed: a function that is not async says yes to all."""
    if authorize is not None and not inspect.iscoroutinefunction(authorize):
        raise ConfigurationError(f"authorize={authorize!r} is no async function", "write async def")


def sends_of(classes: Iterable[Any]) -> tuple[type[BaseModel], ...]:
    """What was declared as sent: a class of rooms stands for the messages that it carries.

    Raises:
        ConfigurationError: something in it can be none.
    """
    found: list[type[BaseModel]] = []
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
            raise ConfigurationError(f"sends has {cls!r}", "give classes of messages, or of rooms that carry some")
        if issubclass(cls, WebSocketMessageBase) and cls.MESSAGE_ID == UNSET_MESSAGE_ID:
            raise ConfigurationError(f"sends has {cls!r}, which has no MESSAGE_ID", "give it one")
        found += carried_by(cls) if issubclass(cls, Room) else [cls]
    return tuple(found)


def carried_by(room: type[Room[Any]]) -> list[type[WebSocketMessageBase]]:
    """The messages that rooms of a class carry, as far as that is known."""
    return [
        cls for cls in room.__carries__ if issubclass(cls, WebSocketMessageBase) and cls.MESSAGE_ID != UNSET_MESSAGE_ID
    ]


def check_timeout(timeout: Any) -> None:
    """Refuse what can be no time limit."""
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
        raise ConfigurationError(f"timeout={timeout!r} cannot be", "give a timedelta above zero")


def check_dispatcher(dispatcher: Any) -> None:
    """Refuse a dispatcher that cannot be called for a message; an object with ``async def __call__`` can be."""
    if not (inspect.iscoroutinefunction(dispatcher) or inspect.iscoroutinefunction(type(dispatcher).__call__)):
        raise ConfigurationError(f"dispatcher={dispatcher!r} is no async function", "write async def")
    check_takes(dispatcher, "a dispatcher", "the connection, the handlers and what came")


def check_takes(function: Callable[..., Any], what: str, given: str) -> None:
    """Refuse a hook that cannot be called with three values, which ``given`` names."""
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        raise ConfigurationError(
            f"{named(function)} is {what} with other parameters than it is given",
            f"take three: {given}",
        ) from None


def _any_is(classes: Sequence[Any], message_type: type[BaseModel]) -> bool:
    # A base class will do, for a function that handles messages of several classes.
    return any(
        isinstance(one, type) and issubclass(one, BaseModel) and issubclass(message_type, one) for one in classes
    )


def _check_kinds(where: str, parameters: Sequence[inspect.Parameter]) -> None:
    for one in parameters:
        if one.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{where}: {one.name!r} cannot be given by name", "write a parameter with a name")
