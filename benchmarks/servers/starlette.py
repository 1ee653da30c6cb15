"""What one writes without a library: FastAPI endpoints, a dict of sets, and a loop over `send_text`."""

from collections import defaultdict
from contextlib import suppress

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.servers.control import Control, rooms_of, serve_asgi

app = FastAPI()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def send(room: str, text: str) -> None:
    for websocket in tuple(rooms[room]):
        await websocket.send_text(text)


control = Control(send)


@app.websocket("/ws")
async def listen(websocket: WebSocket) -> None:
    await websocket.accept()
    joined = rooms_of(websocket.url.query)
    for room in joined:
        rooms[room].add(websocket)
    control.joined += 1
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
    for room in joined:
        rooms[room].discard(websocket)
    control.left += 1


@app.websocket("/inbound")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    control.joined += 1
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())
    control.left += 1


if __name__ == "__main__":
    serve_asgi(app, control, ws="websockets-sansio")
