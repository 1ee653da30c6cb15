"""Request and reply over one socket: what the server asks a client, and what waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import timedelta
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from jararaca_ws.errors import CallFailed, CallTimeout, ConfigurationError, ConnectionClosed
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import encode
from jararaca_ws.wire.refs import answered_ref, decode_reply, reply_envelope, with_ref

__all__ = [
    "CALL_TIMEOUT",
    "PendingCalls",
    "Reply",
    "WebSocketRequest",
    "check_request",
    "reply_of",
    "reply_type",
]

CALL_TIMEOUT = timedelta(seconds=30)
"""How long a call waits for its answer where nothing else is said."""

Reply = TypeVar("Reply")


class WebSocketRequest(WebSocketMessage, Generic[Reply]):
    """A message that is answered, and with what::

        class Confirm(WebSocketRequest[Confirmed]):
            MESSAGE_ID = "orders.confirm"
            question: str

    The reply is anything that pydantic knows, a model mostly, and no type variable. See `WebSocketConnection.call`.
    """


def reply_type(cls: type[WebSocketRequest[Any]]) -> Any:
    """What a request is answered with.

    Raises:
        ConfigurationError: its class does not say.
    """
    for ancestor in cls.__mro__:
        metadata = ancestor.__dict__.get("__pydantic_generic_metadata__", {})
        if metadata.get("origin") is WebSocketRequest and not metadata["parameters"]:
            return metadata["args"][0]
    raise ConfigurationError(
        f"{cls.__module__}.{cls.__qualname__} does not say what it is answered with",
        f"write class {cls.__name__}(WebSocketRequest[TheReply])",
    )


def _envelope_of(cls: type[WebSocketRequest[Any]]) -> TypeAdapter[Any]:
    adapter: TypeAdapter[Any] | None = cls.__dict__.get("__jararaca_ws_reply__")
    if adapter is None:
        adapter = reply_envelope(reply_type(cls))
        cls.__jararaca_ws_reply__ = adapter  # type: ignore[attr-defined]  # on the class, so that it goes with it
    return adapter


def check_request(cls: type[WebSocketRequest[Any]], timeout: timedelta) -> None:
    """What is wrong with a call is said before anybody is asked.

    Raises:
        ConfigurationError: the class does not say what the reply is, or the timeout is not a time.
    """
    _envelope_of(cls)
    given: Any = timeout
    if not isinstance(given, timedelta):
        raise ConfigurationError(f"timeout={given!r} is not a timedelta", "write timedelta(seconds=...)")


def reply_of(request: WebSocketRequest[Reply], raw: str) -> Reply:
    """The typed reply in a client's answer.

    Raises:
        CallFailed: it is an error, or does not fit.
    """
    reply: Reply = decode_reply(raw, _envelope_of(type(request)))
    return reply


class PendingCalls:
    """What one client was asked and has not answered yet. Made with the first call: most connections have none.

    An answer that nobody waits for, because it comes too late or twice, is swallowed.
    """

    __slots__ = ("_count", "_limit", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._waiting: dict[str, asyncio.Future[str]] = {}

    def __len__(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    async def call(
        self, request: WebSocketRequest[Reply], put: Callable[[Frame], Awaitable[None]], timeout: timedelta
    ) -> Reply:
        """Ask, with ``put``, and wait for the reply: see `WebSocketConnection.call`."""
        check_request(type(request), timeout)
        self._count += 1
        ref = f"{self._count:x}"
        frame = with_ref(encode(request), ref)
        answer = self.expect(ref)
        deadline = asyncio.timeout(timeout.total_seconds())
        try:
            async with deadline:
                await put(frame)
                raw = await answer
        except TimeoutError:
            if not deadline.expired():
                raise
            raise CallTimeout(type(request), timeout) from None
        finally:
            self.forget(ref)
        return reply_of(request, raw)

    def expect(self, ref: str) -> asyncio.Future[str]:
        """Wait for the answer to a ref; whoever does so ends with `forget`.

        Raises:
            CallFailed: too many calls wait already.
        """
        if len(self._waiting) >= self._limit:
            raise CallFailed("too_many_calls", f"{self._limit} calls wait for this client already")
        answer = self._waiting[ref] = asyncio.get_running_loop().create_future()
        return answer

    def forget(self, ref: str) -> None:
        """Wait no more; not having waited is no error."""
        answer = self._waiting.pop(ref, None)
        if answer is not None:
            answer.cancel()

    def take(self, message: MutableMapping[str, Any]) -> bool:
        """Whether what was read is an answer, and so is not the application's; synchronous."""
        raw = message.get("text")
        ref = None if raw is None else answered_ref(raw)
        if raw is None or ref is None:
            return False
        answer = self._waiting.pop(ref, None)
        if answer is not None and not answer.done():
            answer.set_result(raw)
        return True

    def close(self, error: ConnectionClosed) -> None:
        """The client has gone: nobody waits for it any more."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(error)
