"""What tests/e2e/test_authentication.py serves: an application whose clients say who they are."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI

from jararaca_ws import (
    CookieToken,
    HeaderToken,
    JWTChecker,
    MessageToken,
    QueryTicket,
    SubprotocolToken,
    User,
    WebSocketConnection,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    current_connection,
)

SECRET = "tests of authentication, 32 bytes"
APP = "https://app.example.com"


class Greeting(WebSocketMessage):
    MESSAGE_ID = "authenticated_app.greeting"

    user_id: str


checker = JWTChecker(SECRET, algorithms=["HS256"])
app = FastAPI()
websockets = WebSocketInterceptor(
    authenticate=checker,
    token_from=[HeaderToken(), SubprotocolToken(), CookieToken("session"), QueryTicket()],
    allowed_origins=[APP],
)
websockets.install(app)
by_message = WebSocketRouter("/message", token_from=[MessageToken()])


async def greet(connection: WebSocketConnection) -> None:
    assert connection.user is not None
    await connection.accept()
    await connection.send(Greeting(user_id=connection.user.id))


@app.websocket("/ws")
async def serve(connection: Annotated[WebSocketConnection, Depends(current_connection)]) -> None:
    await greet(connection)
    await connection.closed.wait()


by_message.on_connect(greet)
app.include_router(by_message)


@app.post("/tickets/{user_id}")
async def ticket(user_id: str) -> str:
    return await websockets.manager.mint_ticket(User(id=user_id))
