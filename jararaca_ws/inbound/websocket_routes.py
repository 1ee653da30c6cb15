"""Which paths the WebSocket routes of an application have, as far as it says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import routing
from starlette.routing import BaseRoute, WebSocketRoute

__all__ = ["nameless", "websocket_routes"]


def nameless(path: str) -> str:
    """A path without the names of its parameters: two that are alike then match the same requests."""
    return re.sub(r"{[^}:]*(:str)?", "{", path)


def websocket_routes(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The whole path and the endpoint of each, those of included routers too; not those of mounted applications."""
    # There since FastAPI leaves the routes of an included router where they are; they were copied before.
    contexts: Any = getattr(routing, "iter_route_contexts", iter)
    for one in contexts(routes):
        if isinstance(getattr(one, "original_route", one), WebSocketRoute):
            yield one.path, one.endpoint
