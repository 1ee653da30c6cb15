"""How a WebSocket ends: what the error of a handler says, and a handshake that is refused."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from fastapi.exceptions import WebSocketRequestValidationError
from starlette.exceptions import HTTPException, WebSocketException
from starlette.types import Scope, Send
from starlette.websockets import WebSocketDisconnect

from jararaca_ws.answering import headers_of, log_unfit, ungrouped
from jararaca_ws.errors import ConnectionClosed, ErrorCategory, JararacaError, one_line
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.close_codes import check_close
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["End", "can_refuse_by_http", "end_of", "failed", "is_own_end", "refuse"]

_log = logging.getLogger("jararaca_ws")


class End(NamedTuple):
    """How a socket ends: the close code and reason, and the HTTP answer where it was never accepted.

    Attributes:
        by_http: such an answer is all that there is to say, where the server can give one: what comes back must be
            another request. A browser's script learns nothing from it.
    """

    code: int
    reason: str = ""
    status: int = 403
    headers: Mapping[str, str] = {}
    by_http: bool = False


def end_of(error: BaseException, connection: WebSocketConnection) -> End:
    """What an error of the handler ends the socket with."""
    connection_id = connection.id
    if is_own_end(error, connection):
        return End(CloseCode.NORMAL)
    error = ungrouped(error)
    if isinstance(error, JararacaError) and not error.is_internal:
        error_id = uuid.uuid4().hex
        _log.warning("connection %s is refused: %s (error %s)", connection_id, one_line(error), error_id)
        connection.tally.errors[error.code] += 1
        by_http = error.category in (ErrorCategory.AUTHENTICATION, ErrorCategory.RATE_LIMIT)
        return End(error.close_code, _cut(error.detail), error.status, headers_of(error), by_http=by_http)
    if isinstance(error, WebSocketException):
        try:
            check_close(error.code, error.reason)
        except ValueError as forbidden:
            return failed(forbidden, connection)
        return End(error.code, error.reason)
    if isinstance(error, WebSocketRequestValidationError):
        log_unfit(connection.scope["path"], error)
        return End(CloseCode.POLICY_VIOLATION)
    if isinstance(error, HTTPException):
        return End(CloseCode.POLICY_VIOLATION, "", error.status_code, error.headers or {})
    return failed(error, connection)


def failed(error: BaseException, connection: WebSocketConnection) -> End:
    """What a handler that failed ends the socket with."""
    error_id = uuid.uuid4().hex
    connection.tally.errors[JararacaError.code] += 1
    _log.error("the handler of connection %s failed (error %s)", connection.id, error_id, exc_info=error)
    return End(CloseCode.INTERNAL_ERROR, f"error {error_id}", 500)


def is_own_end(error: BaseException, connection: WebSocketConnection) -> bool:
    """Whether an error only says that this connection is closed."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_own_end(one, connection) for one in error.exceptions)
    if isinstance(error, ConnectionClosed):
        return error.connection_id == connection.id
    return isinstance(error, WebSocketDisconnect)


def _cut(reason: str) -> str:
    """What fits into a close frame."""
    return reason.encode()[:123].decode(errors="ignore")


async def refuse(end: End, scope: Scope, send: Send) -> None:
    """Answer the handshake with how the socket ends."""
    if (end.status != 403 or end.headers) and can_refuse_by_http(scope):
        headers = [(name.lower().encode(), value.encode()) for name, value in end.headers.items()]
        await send({"type": "websocket.http.response.start", "status": end.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": end.code, "reason": ""})


def can_refuse_by_http(scope: Scope) -> bool:
    """Whether the server can answer a handshake with another status than 403, and with headers."""
    return "websocket.http.response" in scope.get("extensions", {})
