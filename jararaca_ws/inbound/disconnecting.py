"""What is called when a client that was connected has gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import params

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.inbound.marks import check_async, mark
from jararaca_ws.inbound.message_work import MessageWork
from jararaca_ws.inbound.receiving import InboundHandler, handler_of
from jararaca_ws.interceptors.base import DISCONNECT_MARK
from jararaca_ws.wire.close_codes import CloseCode

__all__ = ["OnDisconnect", "disconnect_handler_of", "tell_disconnected"]

_log = logging.getLogger("jararaca_ws")

_F = TypeVar("_F", bound=Callable[..., Awaitable[Any]])

_TOLD = ("code", "reason")


class OnDisconnect:
    """Call an ``async def`` method of a controller when a client of its `WebSocketEndpoint` has gone.

    Once for each client that was connected, whoever has closed, also where a handler has failed, or was cancelled:
    after the last message was handled, and after the client has left its rooms. It is a unit of work: a new controller,
    the interceptors around it, FastAPI's dependencies opened and closed. What it sends leaves at once. It is cancelled
    after ``handler_grace``; what it raises is logged.

    The method asks for what it needs, as a `Receive` method; ``code: int`` and ``reason: str`` are those of the close.

    Args:
        endpoint: the name of the endpoint's method, where the controller has several.
        dependencies: FastAPI dependencies that run before the method.

    Raises:
        ConfigurationError: at once, for a function that is not ``async def``.
    """

    def __init__(self, endpoint: str | None = None, *, dependencies: Sequence[params.Depends] = ()) -> None:
        if endpoint is not None and not isinstance(endpoint, str):
            raise ConfigurationError("@OnDisconnect was used without parentheses", "write @OnDisconnect()")
        self.endpoint = endpoint
        self.dependencies = dependencies

    def __call__(self, function: _F) -> _F:
        check_async(function, "@OnDisconnect")
        mark(function, DISCONNECT_MARK, self)
        return function


def disconnect_handler_of(
    function: Callable[..., Awaitable[Any]],
    *,
    controller: type | None = None,
    dependencies: Sequence[params.Depends] = (),
    path: str = "/",
) -> InboundHandler:
    """A function that is called when a client has gone, and what it asks for.

    Raises:
        ConfigurationError: it asks for what it cannot get.
    """
    return handler_of(function, None, controller=controller, dependencies=dependencies, path=path, told=_TOLD)


async def tell_disconnected(work: MessageWork, hook: InboundHandler) -> None:
    """Call it, as a unit of work of its own; raises nothing but cancellation from outside."""
    connection = work.connection
    with suppress(TimeoutError):
        # Where we were cancelled, the close is under way.
        async with asyncio.timeout(connection.settings.close_timeout.total_seconds()):
            await connection.closed.wait()
    code = CloseCode.NORMAL if connection.close_code is None else connection.close_code
    try:
        async with asyncio.timeout(connection.settings.handler_grace.total_seconds()):
            async with work.unit_of_work(hook.function, None):
                told = {"code": code, "reason": connection.close_reason}
                await hook.call(connection, None, work.host.build, told)
    except Exception:
        _log.exception("connection %s: what is called when it has gone has failed", connection.id)
