"""python-socketio on uvicorn, WebSocket transport from the start.

Its protocol differs: WebSockets are at /socket.io/, the client opens a namespace after the handshake, and a text frame
is an event, `42["m","..."]`. Its heartbeat is a text frame too, so it is put off: the load generator counts frames.
"""

import socketio

from benchmarks.servers.control import REDIS_URL, Control, rooms_of, serve_asgi

server = socketio.AsyncServer(
    async_mode="asgi",
    client_manager=socketio.AsyncRedisManager(REDIS_URL) if REDIS_URL else None,
    ping_interval=3600,
)


async def send(room: str, text: str) -> None:
    await server.emit("m", text, room=room)


control = Control(send, envelope=len('42["m",""]'), side_by_side=50 if REDIS_URL else 1)


@server.event
async def connect(sid: str, environ: dict[str, str], auth: object) -> None:
    for room in rooms_of(environ["QUERY_STRING"]):
        await server.enter_room(sid, room)
    control.joined += 1


@server.event
def disconnect(sid: str, reason: str) -> None:
    control.left += 1


if __name__ == "__main__":
    serve_asgi(socketio.ASGIApp(server), control)
