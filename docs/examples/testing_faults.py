import os
from datetime import timedelta

import pytest
from chat import ChatMessage

from jararaca_ws import BackendUnavailable, RedisWebSocketConnectionBackend, WebSocketConnectionManager
from jararaca_ws.testing import FaultProxy

REDIS_PORT = int(os.environ["REDIS_PORT"])


async def test_a_silent_redis_is_an_error_within_the_timeout() -> None:
    hello = ChatMessage(username="Ana", content="hello")
    async with FaultProxy(REDIS_PORT) as proxy:
        backend = RedisWebSocketConnectionBackend(
            f"redis://127.0.0.1:{proxy.port}", publish_timeout=timedelta(seconds=0.5)
        )
        async with WebSocketConnectionManager(backend) as manager:
            await manager.send(["lobby"], hello)
            proxy.blackhole()
            with pytest.raises(BackendUnavailable):
                await manager.send(["lobby"], hello)
            proxy.heal()
            await manager.send(["lobby"], hello)
