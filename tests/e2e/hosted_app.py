"""What tests/e2e/test_hosting.py serves: a plain FastAPI application with a WebSocketInterceptor installed."""

from __future__ import annotations

import os

from fastapi import BackgroundTasks, Depends, FastAPI

from jararaca_ws import (
    RedisWebSocketConnectionBackend,
    WebSocketConnection,
    WebSocketInterceptor,
    WebSocketMessage,
    current_connection,
)


class Said(WebSocketMessage):
    MESSAGE_ID = "hosted_app.said"

    text: str


app = FastAPI()
WebSocketInterceptor(backend=RedisWebSocketConnectionBackend(os.environ["REDIS_URL"])).install(app)


async def say(text: str, room: str) -> None:
    await Said(text=text).send(room)


@app.post("/{room}")
async def post(room: str, text: str, background: BackgroundTasks) -> None:
    await say(text, room)
    background.add_task(say, f"{text} again", room)


@app.websocket("/ws/{room}")
async def listen(room: str, connection: WebSocketConnection = Depends(current_connection)) -> None:
    await connection.join(room)
    await connection.accept()
    await connection.closed.wait()
