"""Django Channels on uvicorn (Daphne is slower): a consumer per socket, groups, a channel layer."""

from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

from benchmarks.servers.control import REDIS_URL, Control, rooms_of, serve_asgi

# The default capacity, 100 messages, would silently drop what a burst does not leave room for.
LAYER: dict[str, Any] = (
    {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 100_000}}
)
settings.configure(SECRET_KEY="bench", CHANNEL_LAYERS={"default": LAYER}, ALLOWED_HOSTS=["*"])
django.setup()


async def send(room: str, text: str) -> None:
    await get_channel_layer().group_send(room, {"type": "bench.text", "text": text})


control = Control(send, side_by_side=50 if REDIS_URL else 1)


class Listener(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.rooms = rooms_of(self.scope["query_string"].decode())
        for room in self.rooms:
            await self.channel_layer.group_add(room, self.channel_name)
        await self.accept()
        control.joined += 1

    async def disconnect(self, code: int) -> None:
        for room in self.rooms:
            await self.channel_layer.group_discard(room, self.channel_name)
        control.left += 1

    async def bench_text(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["text"])


app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter([path("ws", Listener.as_asgi())])})

if __name__ == "__main__":
    serve_asgi(app, control, lifespan="off")
