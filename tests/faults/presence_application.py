"""A service that knows who is there; `test_presence` kills it."""

from __future__ import annotations

import os
from datetime import timedelta

from jararaca_ws import (
    Get,
    Microservice,
    PresenceSettings,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    use_ws_manager,
)


@RestController("/rooms")
class Rooms:
    @Get("/{room}")
    async def there(self, room: str) -> list[str | None]:
        return sorted((entry.user_id for entry in await use_ws_manager().presence(room)), key=str)

    @WebSocketEndpoint("/{room}/{user_id}")
    async def join(self, connection: WebSocketConnection, room: str, user_id: str) -> None:
        await connection.identify(user_id)
        await connection.join(room)
        await connection.watch_presence(room)
        await connection.closed.wait()


app = Microservice(
    controllers=[Rooms],
    interceptors=[
        WebSocketInterceptor(
            backend=RedisWebSocketConnectionBackend(os.environ["REDIS_URL"]),
            presence=PresenceSettings(
                ttl=timedelta(seconds=2), grace=timedelta(seconds=1), window=timedelta(milliseconds=50)
            ),
        )
    ],
)
