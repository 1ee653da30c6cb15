from datetime import timedelta

from jararaca_ws import (
    Microservice,
    PresenceSettings,
    RedisWebSocketConnectionBackend,
    WebSocketInterceptor,
    WebSocketSettings,
)

app = Microservice(
    interceptors=[
        WebSocketInterceptor(
            backend=RedisWebSocketConnectionBackend("redis://ana:secret@localhost"),
            settings=WebSocketSettings(max_rooms=16, write_timeout=timedelta(seconds=3)),
            presence=PresenceSettings(ttl=timedelta(seconds=60)),
        )
    ]
)
