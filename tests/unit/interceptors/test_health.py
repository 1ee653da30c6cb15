"""``GET /health/live`` and ``/health/ready``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from jararaca_ws import (
    ConfigurationError,
    Health,
    HealthInterceptor,
    MemoryMessageBus,
    MemoryWebSocketConnectionBackend,
    MessageBusInterceptor,
    Microservice,
    WebSocketInterceptor,
    create_http_server,
    health_router,
)
from jararaca_ws.recovery.healing import Healer
from jararaca_ws.testing import lifespan


class Database:
    """An interceptor of the user's that says how well it is."""

    def __init__(self) -> None:
        self.reason = ""

    def health(self) -> Sequence[Health]:
        return [Health(name="database", healthy=not self.reason, reason=self.reason)]

    @asynccontextmanager
    async def intercept(self, app_context: Any) -> AsyncIterator[None]:
        yield


class Speechless(Database):
    def health(self) -> Sequence[Health]:
        raise RuntimeError("secret")


@asynccontextmanager
async def asked(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


def served(*interceptors: Any, **options: Any) -> FastAPI:
    return create_http_server(Microservice(interceptors=[HealthInterceptor(**options), *interceptors]))


async def test_ready_while_every_part_is_well():
    database, web_sockets = Database(), WebSocketInterceptor()
    async with asked(served(database, web_sockets, MessageBusInterceptor(MemoryMessageBus()))) as http:
        ready = await http.get("/health/ready")
        assert ready.status_code == 200
        assert ready.headers["cache-control"] == "no-store"
        assert ready.json() == {
            "status": "ready",
            "parts": [
                {"name": "database", "healthy": True, "reason": ""},
                {"name": "websockets", "healthy": True, "reason": ""},
                {"name": "message bus", "healthy": True, "reason": ""},
            ],
        }
        database.reason = "it is locked"
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "not ready"
        assert ready.json()["parts"][0] == {"name": "database", "healthy": False, "reason": "it is locked"}
        live = await http.get("/health/live")
        assert (live.status_code, live.json()) == (200, {"status": "live"})


async def test_not_ready_while_it_drains():
    web_sockets = WebSocketInterceptor()
    async with asked(served(web_sockets)) as http:
        web_sockets.manager.draining = True
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["parts"] == [{"name": "websockets", "healthy": False, "reason": "it is about to end"}]


async def test_not_ready_while_what_was_missed_cannot_be_read(monkeypatch: pytest.MonkeyPatch):
    async with asked(served(WebSocketInterceptor())) as http:
        monkeypatch.setattr(Healer, "healthy", False)
        assert (await http.get("/health/ready")).json()["parts"][0]["reason"] == "what was missed cannot be read yet"


async def test_a_part_that_cannot_say_how_it_is(caplog: pytest.LogCaptureFixture):
    async with asked(served(Speechless())) as http:
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert "secret" not in ready.text
        assert "Speechless" not in ready.text
        assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


async def test_an_interceptor_that_the_container_builds_is_asked():
    async with asked(served(Database, path="/-/up")) as http:
        assert (await http.get("/-/up/ready")).json()["parts"][0]["name"] == "database"
        assert (await http.get("/health/ready")).status_code == 404
        assert "/-/up" not in (await http.get("/openapi.json")).text


async def test_a_fastapi_application_of_the_users_own():
    database = Database()
    web_sockets = WebSocketInterceptor(MemoryWebSocketConnectionBackend())

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with web_sockets.manager:
            yield

    app = FastAPI(lifespan=life)
    app.include_router(health_router(web_sockets.manager, database), prefix="/health")
    async with asked(app) as http:
        assert (await http.get("/health/ready")).status_code == 200
        database.reason = "it is locked"
        assert (await http.get("/health/ready")).status_code == 503
        assert (await http.get("/health/live")).status_code == 200
    assert web_sockets.health()[0].reason == "it is not started"


@pytest.mark.parametrize("path", ["", "health", "/health/"])
def test_a_path_that_is_none(path: str):
    with pytest.raises(ConfigurationError, match="path="):
        HealthInterceptor(path)
