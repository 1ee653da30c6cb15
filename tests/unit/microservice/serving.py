from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from jararaca_ws.interceptors.base import AppTransactionContext


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application between start-up and shutdown, and a client of it. An unhandled error is answered with 500."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


class Recording:
    """An interceptor that writes down what passes through it."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        self.log.append(f"+{self.name}")
        try:
            yield
        except BaseException as error:
            self.log.append(f"!{self.name} {type(error).__name__}")
            raise
        self.log.append(f"-{self.name}")


class Around:
    """An interceptor made of one asynchronous generator function."""

    def __init__(self, around: Callable[[AppTransactionContext], AsyncIterator[None]]) -> None:
        self.intercept = asynccontextmanager(around)
