"""Litestar with its channels plugin: a subscriber per socket, run in the background."""

from contextlib import suppress

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.exceptions import WebSocketDisconnect
from redis.asyncio import Redis

from benchmarks.servers.control import REDIS_URL, Control, rooms_of, serve_asgi

# With the pool's default of 100 connections, 100 senders and the subscriber are one too many.
backend = (
    RedisChannelsPubSubBackend(redis=Redis.from_url(REDIS_URL, max_connections=500))
    if REDIS_URL
    else MemoryChannelsBackend()
)
plugin = ChannelsPlugin(backend, arbitrary_channels_allowed=True)


async def send(room: str, text: str) -> None:
    # Bytes and wait_published: nothing to encode, and done when the backend has it. `publish` only queues.
    await plugin.wait_published(text.encode(), room)


# Each send takes a connection of redis-py's pool.
control = Control(send, side_by_side=50 if REDIS_URL else 1)


@websocket("/ws")
async def listen(socket: WebSocket) -> None:
    await socket.accept()
    async with (
        plugin.start_subscription(rooms_of(socket.url.query)) as subscriber,
        subscriber.run_in_background(socket.send_text, join=False),
    ):
        control.joined += 1
        with suppress(WebSocketDisconnect):
            while True:
                await socket.receive_text()
    control.left += 1


app = Litestar([listen], plugins=[plugin], openapi_config=None)

if __name__ == "__main__":
    serve_asgi(app, control)
