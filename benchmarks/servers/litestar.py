"""Litestar with its channels plugin: a subscriber per socket, run in the background."""

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.exceptions import WebSocketDisconnect
from redis.asyncio import Redis

from benchmarks.servers.control import REDIS_URL, Control, rooms_of, serve_asgi

backend = RedisChannelsPubSubBackend(redis=Redis.from_url(REDIS_URL)) if REDIS_URL else MemoryChannelsBackend()
plugin = ChannelsPlugin(backend, arbitrary_channels_allowed=True)


async def send(room: str, text: str) -> None:
    # Bytes and wait_published: nothing to encode, and done when the backend has it. `publish` only queues.
    await plugin.wait_published(text.encode(), room)


control = Control(send, together=bool(REDIS_URL))


@websocket("/ws")
async def listen(socket: WebSocket) -> None:
    await socket.accept()
    async with plugin.start_subscription(rooms_of(socket.url.query)) as subscriber:
        async with subscriber.run_in_background(socket.send_text, join=False):
            control.joined += 1
            try:
                while True:
                    await socket.receive_text()
            except WebSocketDisconnect:
                pass
    control.left += 1


app = Litestar([listen], plugins=[plugin], openapi_config=None)

if __name__ == "__main__":
    serve_asgi(app, control)
