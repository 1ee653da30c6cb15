from collections.abc import AsyncIterator

import httpx
import pytest
from chat_bus import ChatController, ReportController, ReportHandlers
from fastapi import FastAPI

from jararaca_ws import (
    MemoryMessageBus,
    MessageBusInterceptor,
    Microservice,
    WebSocketInterceptor,
    create_http_server,
)
from jararaca_ws.testing import connect, lifespan


@pytest.fixture
def bus() -> MemoryMessageBus:
    return MemoryMessageBus()


@pytest.fixture
async def app(bus: MemoryMessageBus) -> AsyncIterator[FastAPI]:
    app = create_http_server(
        Microservice(
            controllers=[ChatController, ReportController, ReportHandlers],
            interceptors=[WebSocketInterceptor(), MessageBusInterceptor(bus=bus)],
        )
    )
    async with lifespan(app):
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_a_message_reaches_the_browser(app: FastAPI, http: httpx.AsyncClient) -> None:
    async with connect(app, "/chat/ws/lobby") as browser:
        await http.post("/chat/lobby/message", json={"username": "Ana", "content": "hello"})
        assert await browser.receive_json() == {
            "MESSAGE_ID": "chat.message",
            "message": {"username": "Ana", "content": "hello"},
        }


async def test_a_report_is_made(app: FastAPI, http: httpx.AsyncClient, bus: MemoryMessageBus) -> None:
    async with connect(app, "/chat/ws/lobby") as browser:
        await http.post("/reports/lobby")
        await bus.join()
        assert not bus.dead_letters
        assert (await browser.receive_json())["message"]["content"] == "the report is ready"
