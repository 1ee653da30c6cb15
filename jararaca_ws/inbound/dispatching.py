"""From a client's frame to its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import BaseModel, PydanticUserError

from jararaca_ws.errors import ConfigurationError, InvalidMessage
from jararaca_ws.inbound.message_work import Host, MessageWork
from jararaca_ws.inbound.receiving import InboundHandler, check_timeout
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessageBase
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.time_limit import TimeLimit
from jararaca_ws.wire.inbound import Codec, Envelopes, FlatPayloads, NoMessages, flat_reply
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["Dispatch", "DispatchOptions", "Dispatcher", "Fallback", "Handlers", "reads_envelopes"]

Handlers = Mapping[type[BaseModel], Callable[[WebSocketConnection, Any], Awaitable[Any]]]
"""By the class of a message, its handler: given the connection and the message, it gets the rest by itself."""

Dispatcher = Callable[[WebSocketConnection, Handlers, Any], Awaitable[Any]]
"""Takes the connection, the handlers, and a message as it came; what it returns goes back."""

Fallback = Callable[[WebSocketConnection, Any, InvalidMessage], Awaitable[Any]]
"""Takes the connection, a message as it came, and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchOptions:
    """How an endpoint reads.

    Attributes:
        discriminator: the field that says the class, where messages have no envelope.
        concurrency: how many messages of one client are handled at once; 1 keeps their order.
        binary: messages, and what goes back, are binary frames.
        timeout: for one message; None: as the settings say; ``timedelta.max``: as long as it likes.

    Raises:
        ConfigurationError: a ``concurrency`` below 1, or a ``timeout`` that is none.
    """

    discriminator: str | None = None
    concurrency: int = 1
    binary: bool = False
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        if self.concurrency < 1:
            raise ConfigurationError(f"concurrency={self.concurrency!r} cannot be", "give a whole number, at least 1")


class Dispatch:
    """The handlers of one endpoint.

    Args:
        where: names the endpoint in errors.
        controller: what the interceptors are told.
        handlers: one for each class.
        fallback: is given what could not be decoded; where None it is refused, and counts as a strike.
        dispatcher: is given everything, as it came.

    Raises:
        ConfigurationError: two handlers for one class, or classes that cannot be told from each other.
    """

    def __init__(
        self,
        where: str,
        controller: type,
        handlers: Sequence[InboundHandler],
        options: DispatchOptions,
        *,
        fallback: Fallback | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self._controller = controller
        self._options = options
        self._fallback = fallback
        self._dispatcher = dispatcher
        self._handlers = _by_class(where, handlers)
        # None where everything goes to the dispatcher.
        self._codec = None if dispatcher is not None else _codec(where, list(self._handlers), options.discriminator)

    async def serve(self, connection: WebSocketConnection, host: Host) -> None:
        """Read and handle until the client has gone, or we have closed.

        Cancellation cancels what is being handled.
        """
        options = self._options
        work = MessageWork(connection, host, self._controller, binary=options.binary, timeout=options.timeout)
        if options.concurrency == 1:
            await self._handle_in_order(connection, work)
            return
        free = asyncio.Semaphore(options.concurrency)
        async with asyncio.TaskGroup() as handling:
            # Before it reads: what cannot be handled yet stays in the queue, whose bound makes the client wait.
            while True:
                await free.acquire()
                raw = await self._read(connection)
                if raw is None:
                    return
                task = handling.create_task(self._handle_beside(raw, work), name=f"websocket-message-{connection.id}")
                task.add_done_callback(lambda _: free.release())

    async def _handle_in_order(self, connection: WebSocketConnection, work: MessageWork) -> None:
        # None before the first message: most connections never send one.
        limit: TimeLimit | None = None
        try:
            while (raw := await self._read(connection)) is not None:
                limit = limit or work.limit()
                await self._handle(raw, work, limit)
        finally:
            if limit is not None:
                limit.stop()

    async def _handle_beside(self, raw: str | bytes, work: MessageWork) -> None:
        limit = work.limit()
        try:
            await self._handle(raw, work, limit)
        finally:
            limit.stop()

    async def _read(self, connection: WebSocketConnection) -> str | bytes | None:
        message = await connection.read()
        if message is None:
            return None
        # Of what was packed the text is the JSON; who decodes by itself gets its binary frames as they came.
        as_bytes = self._options.binary and (self._codec is None or not connection.form.is_packed)
        raw: str | bytes | None = message.get("bytes" if as_bytes else "text")
        if raw is None:
            wanted = "binary" if self._options.binary else "text"
            await connection.close(CloseCode.UNSUPPORTED_DATA, f"{wanted} frames only")
        return raw

    async def _handle(self, raw: str | bytes, work: MessageWork, limit: TimeLimit) -> None:
        codec = self._codec
        if codec is None:
            await self._dispatch(raw, work, limit)
            return
        try:
            message, ref = codec.decode(raw)
        except InvalidMessage as error:
            await self._refuse(raw, error, codec, work, limit)
            return
        handler = self._handlers[type(message)]
        call = partial(handler.call, work.connection, message, work.host.build)
        await work.run(handler.function, message, call, codec.reply, ref, limit, handler.timeout)

    async def _dispatch(self, raw: str | bytes, work: MessageWork, limit: TimeLimit) -> None:
        assert self._dispatcher is not None
        handlers = {cls: partial(handler.call, build=work.host.build) for cls, handler in self._handlers.items()}
        call = partial(self._dispatcher, work.connection, handlers, raw)
        await work.run(self._dispatcher, raw, call, flat_reply, None, limit)

    async def _refuse(
        self, raw: str | bytes, error: InvalidMessage, codec: Codec, work: MessageWork, limit: TimeLimit
    ) -> None:
        ref = codec.ref_of(raw)
        if self._fallback is not None:
            call = partial(self._fallback, work.connection, raw, error)
            await work.run(self._fallback, raw, call, flat_reply, ref, limit)
        if self._fallback is None or ref is not None:
            work.connection.refuse(error, ref, is_strike=self._fallback is None)


def _by_class(where: str, handlers: Sequence[InboundHandler]) -> dict[type[BaseModel], InboundHandler]:
    found: dict[type[BaseModel], InboundHandler] = {}
    for handler in handlers:
        assert handler.message_type is not None
        first = found.setdefault(handler.message_type, handler)
        if first is not handler:
            raise ConfigurationError(
                f"{where}: both {first.function.__qualname__} and {handler.function.__qualname__} handle "
                f"{handler.message_type.__qualname__}",
                "leave one of them out",
            )
    return found


def reads_envelopes(classes: Sequence[type[BaseModel]], discriminator: str | None) -> bool:
    """Whether what comes for these classes is in envelopes; else it is the fields themselves."""
    return discriminator is None and any(issubclass(cls, WebSocketMessageBase) for cls in classes)


def _codec(where: str, classes: list[type[BaseModel]], discriminator: str | None) -> Codec:
    if not classes:
        return NoMessages()
    messages = [cls for cls in classes if issubclass(cls, WebSocketMessageBase)]
    try:
        if not reads_envelopes(classes, discriminator):
            return FlatPayloads(classes, discriminator)
        if len(messages) < len(classes):
            (other, *_) = [cls for cls in classes if cls not in messages]
            raise ConfigurationError(f"{where}: {other.__qualname__} is no WebSocketMessage, and others are")
        _check_ids(where, messages)
        return Envelopes(messages)
    except PydanticUserError as error:  # of a discriminator that cannot be one
        raise ConfigurationError(f"{where}: these messages cannot be told from each other ({error})") from error


def _check_ids(where: str, classes: Sequence[type[WebSocketMessageBase]]) -> None:
    seen: dict[str, type[WebSocketMessageBase]] = {}
    for cls in classes:
        if cls.MESSAGE_ID == UNSET_MESSAGE_ID:
            raise ConfigurationError(f"{where}: {cls.__qualname__} has no MESSAGE_ID", "give it one")
        first = seen.setdefault(cls.MESSAGE_ID, cls)
        if first is not cls:
            raise ConfigurationError(
                f"{where}: {first.__qualname__} and {cls.__qualname__} have one MESSAGE_ID, {cls.MESSAGE_ID!r}",
                "give one of them another",
            )
