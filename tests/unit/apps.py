"""Small applications around controllers, for tests of what a user sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.microservice import Microservice, create_http_server
from jararaca_ws.testing import WebSocketClosed, connect, lifespan


class App:
    """An application that runs.

    Attributes:
        asgi: for `jararaca_ws.testing.connect`.
        http: a client; an unhandled error is answered with 500.
    """

    def __init__(self, asgi: FastAPI, http: httpx.AsyncClient, interceptor: WebSocketInterceptor) -> None:
        self.asgi = asgi
        self.http = http
        self.interceptor = interceptor

    @property
    def manager(self) -> WebSocketConnectionManager:
        return self.interceptor.manager


def application(*controllers: type, interceptor: WebSocketInterceptor | None = None, others: Any = ()) -> FastAPI:
    return create_http_server(
        Microservice(controllers=controllers, interceptors=[interceptor or WebSocketInterceptor(), *others])
    )


@asynccontextmanager
async def running(
    *controllers: type, interceptor: WebSocketInterceptor | None = None, others: Any = ()
) -> AsyncIterator[App]:
    """Start an application of these controllers; stop it at the end."""
    interceptor = interceptor or WebSocketInterceptor()
    app = application(*controllers, interceptor=interceptor, others=others)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield App(app, http, interceptor)


async def end_of(app: App, path: str) -> WebSocketClosed:
    """How the application ends a socket by itself: whether it refuses the handshake or closes after it."""
    try:
        async with connect(app.asgi, path) as socket:
            return await socket.closed()
    except WebSocketClosed as refused:
        return refused
