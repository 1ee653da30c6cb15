from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from jararaca_ws.backends.limits import LimitStore
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.backends.memory_limits import MemoryLimits
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.hosting import current_connection
from jararaca_ws.inbound.websocket_router import WebSocketRouter
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Microservice, RestController, create_http_server
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from tests.unit.apps import running
from tests.unit.clusters import HubBackend
from tests.unit.limits.test_claims import Store
from tests.unit.played import turns, until

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


class HeldUp(MemoryWebSocketConnectionBackend):
    """Its limits are asked in vain while it is not going."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(MemoryLimits())

    def limit_store(self, instance_id: str, *, ttl_ms: int) -> LimitStore:
        return self.store


async def test_who_has_gone_while_it_was_counted_is_not():
    backend = HeldUp()
    interceptor = WebSocketInterceptor(backend, settings=WebSocketSettings(max_connections=5))
    async with running(Sockets, interceptor=interceptor) as app:
        claims = app.manager.admission._claims
        assert claims is not None
        await until(lambda: backend.store.calls)
        backend.store.going.clear()

        async def come() -> None:
            async with connect(app.asgi, "/ws"):
                raise AssertionError("it is not asked yet")

        coming = asyncio.create_task(come())
        await turns()
        coming.cancel()
        await turns()
        backend.store.going.set()
        await asyncio.gather(coming, return_exceptions=True)
        assert claims.held == {}
        async with connect(app.asgi, "/ws"):
            assert claims.held == {"total": 1}


def test_a_backend_that_does_not_know_them_cannot_limit_connections():
    with pytest.raises(ConfigurationError, match="HubBackend does not know how many there are"):
        WebSocketConnectionManager(HubBackend([]), settings=WebSocketSettings(max_connections_per_user=1))
    WebSocketConnectionManager(HubBackend([]))


@pytest.mark.parametrize("wrong", [{"max_connections": 0}, {"limits_ttl": timedelta(seconds=0.5)}])
def test_limits_that_cannot_be(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        WebSocketSettings(**wrong)
