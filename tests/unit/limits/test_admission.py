from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI

from jararaca_ws.hosting import current_connection
from jararaca_ws.inbound.websocket_router import WebSocketRouter
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, RestController, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import WebSocketClosed, connect, lifespan

TWO = WebSocketSettings(handshake_rate=1, handshake_burst=2)


class Posted(WebSocketMessage):
    MESSAGE_ID = "limits.posted"


@RestController("")
class Sockets:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()


def router() -> WebSocketRouter:
    made = WebSocketRouter("/ws")

    @made.receive(Posted)
    async def posted(message: Posted) -> None: ...

    return made


def of_a_controller() -> FastAPI:
    return create_http_server(Microservice(controllers=[Sockets], interceptors=[WebSocketInterceptor(settings=TWO)]))


def of_a_router() -> FastAPI:
    app = create_http_server(Microservice(interceptors=[WebSocketInterceptor(settings=TWO)]))
    app.include_router(router())
    return app


def of_a_hosted_router() -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor(settings=TWO).install(app)
    app.include_router(router())
    return app


def of_a_host() -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor(settings=TWO).install(app)

    @app.websocket("/ws")
    async def ws(connection: WebSocketConnection = Depends(current_connection)) -> None:
        await connection.accept()
        await connection.closed.wait()

    return app


@pytest.mark.parametrize("make", [of_a_controller, of_a_router, of_a_hosted_router, of_a_host])
async def test_one_handshake_too_many_is_answered_503(make: Any):
    app = make()
    async with lifespan(app):
        for _ in range(2):
            async with connect(app, "/ws"):
                pass
        with pytest.raises(WebSocketClosed) as refused:
            async with connect(app, "/ws"):
                pass
        assert refused.value.status == 503


async def test_nothing_is_limited_where_nothing_is_to_be():
    settings = WebSocketSettings(handshake_rate=None, handshake_burst=1)
    app = create_http_server(
        Microservice(controllers=[Sockets], interceptors=[WebSocketInterceptor(settings=settings)])
    )
    async with lifespan(app):
        for _ in range(50):
            async with connect(app, "/ws"):
                pass
