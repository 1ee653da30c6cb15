"""Served by test_limits.py: ten connections in all."""

from __future__ import annotations

import os
from datetime import timedelta

from jararaca_ws import (
    Get,
    Microservice,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketSettings,
)


@RestController("")
class Sockets:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection) -> None:
        await connection.closed.wait()

    @Get("/info")
    async def info(self) -> str:
        return "up"


app = Microservice(
    controllers=[Sockets],
    interceptors=[
        WebSocketInterceptor(
            RedisWebSocketConnectionBackend(os.environ["REDIS_URL"]),
            settings=WebSocketSettings(max_connections=10, limits_ttl=timedelta(seconds=2)),
        )
    ],
)
