"""What tests/e2e/test_recovery.py serves."""

from __future__ import annotations

import os
from datetime import timedelta

from jararaca_ws import (
    Get,
    Microservice,
    Post,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    recoverable,
    use_ws_manager,
)


class Kept(WebSocketMessage):
    MESSAGE_ID = "test_recovery.kept"
    DELIVERY = recoverable(size=3000, ttl=timedelta(minutes=5))

    n: int


@RestController("")
class Rooms:
    @Get("/info")
    async def info(self) -> dict[str, int]:
        counters = use_ws_manager().counters
        return {"healed": counters.healed, "gaps": counters.gaps, "recovered": counters.recovered}

    @WebSocketEndpoint("/ws/{room}")
    async def listen(self, room: str, connection: WebSocketConnection) -> None:
        await connection.join(room)
        await connection.closed.wait()

    @Post("/{room}", status_code=202)
    async def send(self, room: str, first: int, last: int) -> None:
        """One send after the other, none staged."""
        for n in range(first, last + 1):
            await Kept(n=n).send_now(room)

    @Get("/{room}/history")
    async def history(self, room: str) -> list[int]:
        history = await use_ws_manager().history(room, limit=1000)
        return [entry.message.n for entry in history.messages if isinstance(entry.message, Kept)]


app = Microservice(
    controllers=[Rooms],
    interceptors=[WebSocketInterceptor(backend=RedisWebSocketConnectionBackend(os.environ["REDIS_URL"]))],
)
