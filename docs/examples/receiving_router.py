from fastapi import APIRouter, WebSocketException

from jararaca_ws import (
    InvalidMessage,
    Microservice,
    WebSocketConnection,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    create_http_server,
)


class Said(WebSocketMessage):
    MESSAGE_ID = "hall.said"

    text: str


class Left(WebSocketMessage):
    MESSAGE_ID = "hall.left"

    code: int


router = WebSocketRouter("/{hall}")


@router.on_connect
async def connect(connection: WebSocketConnection, hall: str, token: str) -> None:
    if token != "open sesame":
        raise WebSocketException(4507, "wrong token")
    await connection.join(hall)  # before the client is accepted: it misses nothing


@router.receive(Said)
async def said(message: Said, hall: str) -> None:
    await message.send(hall)


@router.on_fallback
async def no_message(connection: WebSocketConnection, raw: str | bytes, error: InvalidMessage) -> Said:
    return Said(text=f"this is {error.code}")


@router.on_disconnect
async def disconnected(connection: WebSocketConnection, code: int, reason: str) -> None:
    await Left(code=code).send("doorkeepers")


halls = APIRouter(prefix="/halls")
halls.include_router(router)

app = create_http_server(Microservice(interceptors=[WebSocketInterceptor()]))
app.include_router(halls, prefix="/api")
