"""The Jararaca framework, used as its documentation on distributed WebSockets shows.

It has a Redis backend only. `WebSocketMessage.send` takes a unit of work, and stages; the manager's `send` is public
too, and does at once the same. So the manager is kept from the first endpoint that runs, where the documentation has
`use_ws_manager()`.
"""

from fastapi import WebSocket
from jararaca import (
    Microservice,
    RedisWebSocketConnectionBackend,
    RestController,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    create_http_server,
    use_ws_manager,
)
from jararaca.presentation.http_microservice import HttpMicroservice
from redis.asyncio import Redis

from benchmarks.servers.control import REDIS_URL, Control, rooms_of, serve_asgi


class Text(WebSocketMessage):
    MESSAGE_ID = "bench"

    text: str


managers = []


async def send(room: str, text: str) -> None:
    await managers[0].send([room], Text(text=text))


# Its frame has the same envelope as ours. Each send takes a connection of redis-py's pool.
control = Control(send, envelope=len('{"MESSAGE_ID":"bench","message":{"text":""}}'), side_by_side=50)


@RestController("/bench")
class Bench:
    @WebSocketEndpoint("/ws")
    async def listen(self, websocket: WebSocket) -> None:
        await websocket.accept()
        manager = use_ws_manager()
        if not managers:
            managers.append(manager)
        await manager.add_websocket(websocket)
        await manager.join(rooms_of(websocket.url.query), websocket)
        control.joined += 1
        try:
            while (await websocket.receive())["type"] != "websocket.disconnect":
                continue
        finally:
            await manager.remove_websocket(websocket)
            control.left += 1


def application() -> object:
    """Made inside the running event loop, where its Redis readers start; uvicorn's own command has it so too."""
    backend = RedisWebSocketConnectionBackend(
        send_pubsub_channel="bench:send",
        broadcast_pubsub_channel="bench:broadcast",
        conn=Redis.from_url(REDIS_URL, decode_responses=False),
    )
    return create_http_server(
        HttpMicroservice(Microservice(controllers=[Bench], interceptors=[WebSocketInterceptor(backend=backend)]))
    )


if __name__ == "__main__":
    serve_asgi(application, control, factory=True)
