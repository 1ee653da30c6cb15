import asyncio
import os
import sys

from chat_bus import ChatMessage, ReportRequested

from jararaca_ws import (
    RabbitMQMessageBus,
    RedisWebSocketConnectionBackend,
    WebSocketConnectionManager,
    provide_bus,
    provide_ws_manager,
)


async def main(room: str) -> None:
    backend = RedisWebSocketConnectionBackend(conn=os.environ["REDIS_URL"])
    bus = RabbitMQMessageBus(os.environ["AMQP_URL"])
    await bus.start()
    try:
        async with WebSocketConnectionManager(backend) as manager:
            with provide_ws_manager(manager), provide_bus(bus):
                await ChatMessage(username="script", content="hello").send(room)
                await ReportRequested(room_id=room).publish()
    finally:
        await bus.stop()


asyncio.run(main(sys.argv[1]))
