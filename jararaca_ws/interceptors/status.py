"""Statistics over HTTP, for those who may see them."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response, params
from pydantic import SecretStr
from starlette.routing import BaseRoute

from jararaca_ws.errors import AuthenticationFailed, ConfigurationError
from jararaca_ws.figures import InstanceStatistics, Statistics
from jararaca_ws.interceptors.base import AppTransactionContext, Runtime
from jararaca_ws.manager import WebSocketConnectionManager

__all__ = ["StatusInterceptor", "status_router"]


class StatusInterceptor:
    """Adds ``GET /status``, the statistics of all instances, and ``GET /status/instance``, those of who answers.

    Somebody has to be let in: give a token, which comes as ``Authorization: Bearer ...``, or dependencies that refuse,
    or both. Who is refused gets 401, or what the dependency says. The place in the list does not matter.

    Args:
        token: at least 16 characters.
        dependencies: of FastAPI, run before each answer.
        path: of the first route.

    Raises:
        ConfigurationError: neither is given, the token is too short, or the path is none.
    """

    def __init__(
        self,
        *,
        token: SecretStr | str | None = None,
        dependencies: Sequence[params.Depends] = (),
        path: str = "/status",
    ) -> None:
        if not path.startswith("/") or path.endswith("/"):
            raise ConfigurationError(f"path={path!r} cannot be", 'write one like "/status"')
        self._guards = _guards(token, dependencies)
        self._path = path

    def http_routes(self, runtime: Runtime) -> Sequence[BaseRoute]:
        # Asked at each request: an interceptor that the container builds is there only while the application runs.
        return _router(lambda: _manager_of(runtime), self._guards, self._path).routes

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield


def status_router(
    manager: WebSocketConnectionManager,
    *,
    token: SecretStr | str | None = None,
    dependencies: Sequence[params.Depends] = (),
) -> APIRouter:
    """The same for a FastAPI application that is not made of a `Microservice`.

    ``app.include_router(status_router(interceptor.manager, token=...), prefix="/status")``; see `StatusInterceptor`.
    """
    return _router(lambda: manager, _guards(token, dependencies), "")


def _manager_of(runtime: Runtime) -> WebSocketConnectionManager:
    for interceptor in runtime.interceptors:
        manager = getattr(interceptor, "manager", None)
        if isinstance(manager, WebSocketConnectionManager):
            return manager
    raise HTTPException(503, "there is no WebSocketInterceptor")


def _guards(token: SecretStr | str | None, dependencies: Sequence[params.Depends]) -> list[params.Depends]:
    if token is None:
        if not dependencies:
            raise ConfigurationError("the status route would be open to all", "give it a token, or dependencies")
        return list(dependencies)
    secret = token.get_secret_value() if isinstance(token, SecretStr) else token
    if len(secret) < 16:
        raise ConfigurationError("the token of the status route is too short", "give at least 16 characters")
    wanted = f"Bearer {secret}".encode()

    def check(authorization: Annotated[str, Header()] = "") -> None:
        # In a time that says nothing of how much of it is right.
        if not hmac.compare_digest(authorization.encode(), wanted):
            raise AuthenticationFailed("the status route was asked for without its token")

    return [Depends(check), *dependencies]


def _router(
    manager: Callable[[], WebSocketConnectionManager], guards: Sequence[params.Depends], path: str
) -> APIRouter:
    router = APIRouter(prefix=path, dependencies=guards, include_in_schema=False)

    @router.get("")
    async def status(response: Response) -> Statistics:
        response.headers["Cache-Control"] = "no-store"
        return await manager().statistics()

    @router.get("/instance")
    async def instance(response: Response) -> InstanceStatistics:
        response.headers["Cache-Control"] = "no-store"
        return manager().instance_statistics()

    return router
