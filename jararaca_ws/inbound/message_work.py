"""One message of a client as one unit of work: the interceptors, the handler, the reply or the error."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Protocol

from starlette.exceptions import WebSocketException

from jararaca_ws.answering import ungrouped
from jararaca_ws.errors import HandlerTimeout, JararacaError
from jararaca_ws.interceptors.base import AppTransactionContext, WebSocketTransactionData
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.ending import is_own_end
from jararaca_ws.sockets.time_limit import TimeLimit
from jararaca_ws.wire.close_codes import CloseCode, check_close
from jararaca_ws.wire.frames import Frame

__all__ = ["Host", "MessageWork"]

_log = logging.getLogger("jararaca_ws")


class Host(Protocol):
    """Who builds controllers, and has the interceptors."""

    def build(self, controller: type) -> Any: ...
    def unit_of_work(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]: ...


class MessageWork:
    """The units of work of the messages of one connection.

    Args:
        controller: what the interceptors are told.
        binary: what goes back goes as binary frames.
        timeout: for one message; None: as the settings of the connection say.
    """

    __slots__ = ("_binary", "_controller", "_limit_s", "connection", "host")

    def __init__(
        self,
        connection: WebSocketConnection,
        host: Host,
        controller: type,
        *,
        binary: bool = False,
        timeout: timedelta | None = None,
    ) -> None:
        self.connection = connection
        self.host = host
        self._controller = controller
        self._binary = binary
        # None in the settings: no limit.
        self._limit_s = _seconds_of(timeout or connection.settings.handler_timeout or timedelta.max)

    def limit(self) -> TimeLimit:
        """The time limit of messages that one task handles; who has it calls `TimeLimit.stop` in the end."""
        return TimeLimit(self._ignored, self.connection.settings.handler_grace.total_seconds())

    def unit_of_work(self, handler: Callable[..., Any], message: Any) -> AbstractAsyncContextManager[None]:
        """The interceptors around a handler."""
        data = WebSocketTransactionData(
            websocket=self.connection.websocket, connection=self.connection, message=message
        )
        return self.host.unit_of_work(
            AppTransactionContext(transaction_data=data, controller=self._controller, handler=handler)
        )

    async def run(
        self,
        handler: Callable[..., Any],
        message: Any,
        call: Callable[[], Awaitable[Any]],
        encode: Callable[[Any, str | None], Frame | None],
        ref: str | None,
        limit: TimeLimit,
        timeout: timedelta | None = None,
    ) -> None:
        """Handle a message, and answer it. Raises nothing but cancellation from outside."""
        completed = False
        seconds = self._limit_s if timeout is None else _seconds_of(timeout)
        try:
            with limit(seconds):
                async with self.unit_of_work(handler, message):
                    # Encoded in the unit of work: a reply that cannot be fails it. It leaves when it has succeeded.
                    reply = encode(await call(), ref)
                    completed = True
            if not completed:
                raise JararacaError(f"an interceptor swallowed the error of {_name(handler)}, so there is no reply")
            if reply is not None:
                as_bytes = self._binary and not self.connection.form.is_packed  # which makes binary frames of it anyway
                await self.connection.reply(Frame(reply.data, binary=True) if as_bytes else reply)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(error, ref)  # something that it awaited was cancelled; nobody cancelled the handler
        except Exception as error:
            if seconds is not None and limit.expired and isinstance(error, TimeoutError):
                error = HandlerTimeout(_name(handler), seconds)
            self._failed(error, ref)

    # --- errors -------------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException, ref: str | None) -> None:
        if is_own_end(error, self.connection):
            return
        error = ungrouped(error)
        if isinstance(error, WebSocketException):
            try:
                check_close(error.code, error.reason)
            except ValueError as forbidden:
                error = forbidden
            else:
                # Not waited for: other messages may be handled meanwhile, and whoever reads sees the end.
                self.connection.begin_close(error.code, error.reason)
                return
        self.connection.refuse(error, ref)

    def _ignored(self) -> None:
        """A handler goes on although it was cancelled: nobody can end it, but its client need not wait for it."""
        error_id = uuid.uuid4().hex
        _log.error(
            "connection %s is closed: a handler took too long and goes on after it was cancelled (error %s)",
            self.connection.id,
            error_id,
        )
        self.connection.begin_close(CloseCode.INTERNAL_ERROR, f"error {error_id}")


def _seconds_of(timeout: timedelta) -> float | None:
    return None if timeout == timedelta.max else timeout.total_seconds()


def _name(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", repr(handler))
