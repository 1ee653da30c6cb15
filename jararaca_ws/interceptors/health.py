"""Health over HTTP: whether the process lives, and whether it can do its work."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.routing import BaseRoute

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.health import Health, ReportsHealth
from jararaca_ws.interceptors.base import AppTransactionContext, Runtime

__all__ = ["HealthInterceptor", "health_router"]

_log = logging.getLogger("jararaca_ws")


class HealthInterceptor:
    """Adds ``GET /health/live`` and ``GET /health/ready`` to a microservice. Its place in the list does not matter.

    ``live`` answers 200 while the event loop turns. ``ready`` answers 200 while every interceptor that has a
    ``health()`` is well (`ReportsHealth`: `WebSocketInterceptor` and `MessageBusInterceptor` do, yours may), and 503
    otherwise; its JSON says which part is not, and why.

    Args:
        path: of both routes.

    Raises:
        ConfigurationError: it is no path.
    """

    def __init__(self, path: str = "/health") -> None:
        if not path.startswith("/") or path.endswith("/"):
            raise ConfigurationError(f"path={path!r} cannot be", 'write one like "/health"')
        self._path = path

    def http_routes(self, runtime: Runtime) -> Sequence[BaseRoute]:
        # Asked at each request: an interceptor that the container builds is there only while the application runs.
        return _router(lambda: runtime.interceptors, self._path).routes

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield


def health_router(*parts: ReportsHealth) -> APIRouter:
    """``/live`` and ``/ready`` for a FastAPI application that is not made of a `Microservice`.

    ``app.include_router(health_router(manager, bus), prefix="/health")``; see `HealthInterceptor`.
    """
    return _router(lambda: parts)


def _router(parts: Callable[[], Iterable[object]], prefix: str = "") -> APIRouter:
    router = APIRouter(prefix=prefix, include_in_schema=False)

    @router.get("/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "live"}, headers={"Cache-Control": "no-store"})

    @router.get("/ready")
    async def ready() -> JSONResponse:
        found = [health for part in parts() for health in _ask(part)]
        is_ready = all(health.healthy for health in found)
        return JSONResponse(
            {"status": "ready" if is_ready else "not ready", "parts": [asdict(health) for health in found]},
            status_code=200 if is_ready else 503,
            headers={"Cache-Control": "no-store"},
        )

    return router


def _ask(part: object) -> Iterator[Health]:
    if isinstance(part, ReportsHealth):
        try:
            yield from part.health()
        except Exception:
            _log.exception("%r cannot say how well it is", part)
            yield Health(name="unknown", healthy=False, reason="it cannot say how well it is: see the log")
