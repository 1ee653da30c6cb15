"""What the examples share: an application that runs in the loop of the test, or two instances of it over one Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from jararaca_ws import Microservice, RedisWebSocketConnectionBackend, WebSocketConnectionBackend, create_http_server
from jararaca_ws.testing import InLoopWebSocket, connect, lifespan
from tests.servers import RedisServer

Application = FastAPI | Microservice


@dataclass(frozen=True)
class Instance:
    """One instance that runs.

    Attributes:
        http: its HTTP client; an unhandled error is answered with 500.
    """

    asgi: FastAPI
    http: httpx.AsyncClient

    def browser(self, path: str, **options: Any) -> AbstractAsyncContextManager[InLoopWebSocket]:
        return connect(self.asgi, path, **options)


@asynccontextmanager
async def running(app: Application) -> AsyncIterator[Instance]:
    asgi = create_http_server(app) if isinstance(app, Microservice) else app
    transport = httpx.ASGITransport(app=asgi, raise_app_exceptions=False)
    async with lifespan(asgi), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield Instance(asgi, http)


@asynccontextmanager
async def two_instances(
    make: Callable[[WebSocketConnectionBackend], Application], redis: RedisServer
) -> AsyncIterator[tuple[Instance, Instance]]:
    async with (
        running(make(RedisWebSocketConnectionBackend(redis.url))) as one,
        running(make(RedisWebSocketConnectionBackend(redis.url))) as other,
    ):
        yield one, other


async def say(browser: InLoopWebSocket, message_id: str, ref: str | None = None, **fields: Any) -> None:
    """Send an envelope, as a browser does."""
    envelope = {"MESSAGE_ID": message_id, "message": fields}
    await browser.send_text(json.dumps(envelope if ref is None else {**envelope, "ref": ref}))


async def heard(*browsers: InLoopWebSocket) -> Any:
    """The message that has come to each of them; of several browsers all have to get the same."""
    frames = [(await browser.receive_json())["message"] for browser in browsers]
    assert all(frame == frames[0] for frame in frames), frames
    return frames[0]
