"""The HTTP answers to what is nobody's bug: a server of ours is away, or a client wrote a name that is none."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from jararaca_ws.errors import BadName, PermissionDenied, Unavailable, quoted

__all__ = ["add_answers"]

_log = logging.getLogger("jararaca_ws")


def add_answers(exception_handlers: MutableMapping[Any, Any]) -> None:
    """Have `Unavailable` answered with 503, `BadName` with 400 and `PermissionDenied` with 403.

    Where the application has handlers of its own for them, these stay.
    """
    exception_handlers.setdefault(Unavailable, _answer_unavailable)
    exception_handlers.setdefault(BadName, _answer_bad_name)
    exception_handlers.setdefault(PermissionDenied, _answer_permission_denied)


async def _answer_unavailable(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, Unavailable)
    if not isinstance(request, Request):
        raise error  # of a WebSocket: whoever serves it closes it
    # The reason may name hosts: it is for the log, not for the client.
    _log.warning("%s %s is answered with 503: %s", request.method, quoted(request.url.path), error)
    detail = f"{error.server} is unavailable: try again"
    return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "1"})


async def _answer_bad_name(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, BadName)
    if not isinstance(request, Request):
        raise error
    return JSONResponse({"detail": f"this is not {error.kind}: {error.problem}"}, status_code=400)


async def _answer_permission_denied(request: HTTPConnection, error: Exception) -> Response:
    if not isinstance(request, Request):
        raise error
    return JSONResponse({"detail": "permission denied"}, status_code=403)
