"""What an error means to the client whose doing it is, and how HTTP answers it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from math import ceil
from typing import Any
from uuid import uuid4

from fastapi import Request, Response, WebSocket
from fastapi.exception_handlers import websocket_request_validation_exception_handler
from fastapi.exceptions import WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.routing import Match, Router
from starlette.types import Receive, Scope, Send

from jararaca_ws.errors import ErrorCategory, JararacaError, PermissionDenied, RateLimited, one_line, quoted
from jararaca_ws.wire.close_codes import CloseCode

__all__ = [
    "add_answers",
    "add_refusals",
    "add_upgrade_answer",
    "for_log",
    "headers_of",
    "log_unfit",
    "refusal_of",
    "ungrouped",
]

_log = logging.getLogger("jararaca_ws")


class _BadRequest(JararacaError):
    """What a handler, or FastAPI for it, has found wrong with the content of a message or a handshake."""

    category = ErrorCategory.VALIDATION
    code = "bad_request"
    close_code = CloseCode.BAD_REQUEST
    status = 400


def refusal_of(error: BaseException) -> JararacaError | None:
    """What a client may be told of an error; None: nothing, it is a failure of ours."""
    if isinstance(error, JararacaError):
        return None if error.is_internal else error
    if isinstance(error, WebSocketRequestValidationError):
        return _BadRequest("a parameter of the handshake is not valid")  # its text holds the input
    if isinstance(error, HTTPException) and 400 <= error.status_code < 500:
        problem = f"HTTP {error.status_code}"
        if error.status_code in (401, 403):
            return PermissionDenied(problem)
        return RateLimited() if error.status_code == 429 else _BadRequest(problem)
    return None


def ungrouped(error: BaseException) -> BaseException:
    """What a group of errors means: its first one, where each of them concerns the client; else what it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    errors = [ungrouped(one) for one in error.exceptions]
    told = all(isinstance(one, WebSocketException) or refusal_of(one) is not None for one in errors)
    return errors[0] if told else error


def headers_of(error: JararacaError) -> dict[str, str]:
    """What an HTTP answer says beside its status: when to come again, and that a token is wanted."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(0, ceil(error.retry_after.total_seconds())))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def add_answers(exception_handlers: MutableMapping[Any, Any]) -> None:
    """Have HTTP answer a `JararacaError` with its status, its code and an id, which is in the log as well.

    A handshake whose parameters do not fit is refused as FastAPI refuses it, and the log says what was wrong.

    Where the application has handlers of its own for it, or for some of its classes, these stay.
    """
    exception_handlers.setdefault(JararacaError, _answer)
    if exception_handlers.get(WebSocketRequestValidationError) is websocket_request_validation_exception_handler:
        exception_handlers[WebSocketRequestValidationError] = _refuse


def add_refusals(
    exception_handlers: MutableMapping[Any, Any], refuse: Callable[[WebSocket, Exception], Awaitable[None]]
) -> None:
    """Leave to ``refuse`` what leaves a WebSocket route, where the application has no handlers of its own for it."""
    exception_handlers.setdefault(WebSocketException, refuse)
    if exception_handlers.get(JararacaError) is _answer:

        async def answer(connection: HTTPConnection, error: Exception) -> Response | None:
            if isinstance(connection, WebSocket):
                await refuse(connection, error)
                return None
            return await _answer(connection, error)

        exception_handlers[JararacaError] = answer


def add_upgrade_answer(router: Router) -> None:
    """Have an HTTP request that nothing serves, where a WebSocket is served, answered with 426 in place of 404."""
    nothing_found = router.default

    async def nothing_for_http(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            as_websocket = {**scope, "type": "websocket"}
            if any(route.matches(as_websocket)[0] is Match.FULL for route in router.routes):
                raise HTTPException(426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        await nothing_found(scope, receive, send)

    router.default = nothing_for_http


def log_unfit(path: str, error: WebSocketRequestValidationError) -> None:
    """Log that parameters of a handshake do not fit."""
    _log.warning("the handshake of %s is refused: %s", quoted(path), for_log(error))


def for_log(error: BaseException) -> str:
    """What an error says, in one line. Of parameters that do not fit the names alone: a value may be a token."""
    if not isinstance(error, WebSocketRequestValidationError):
        return one_line(error)
    return quoted(", ".join(f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors()))


async def _refuse(websocket: WebSocket, error: WebSocketRequestValidationError) -> None:
    """Refuse a handshake as FastAPI does, but not in silence."""
    log_unfit(websocket.url.path, error)
    await websocket_request_validation_exception_handler(websocket, error)


async def _answer(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, JararacaError)
    if error.is_internal or not isinstance(request, Request):
        raise error  # a failure, which the server logs; or of a WebSocket: whoever serves it closes it
    error_id = uuid4().hex
    told = f"{request.method} {quoted(request.url.path)} is answered with {error.status}"
    _log.warning("%s: %s (error %s)", told, one_line(error), error_id)
    content = {"detail": error.detail, "code": error.code, "id": error_id}
    return JSONResponse(content, status_code=error.status, headers=headers_of(error))
