import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from jararaca_ws import (
    CookieToken,
    HeaderToken,
    JWTChecker,
    MessageToken,
    PresentedToken,
    QueryTicket,
    SubprotocolToken,
    User,
    WebSocketConnection,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    current_connection,
)

SECRET = secrets.token_bytes(32)  # yours comes from the environment, and all instances have the same


class Greeting(WebSocketMessage):
    MESSAGE_ID = "greeting"

    text: str


jwt_checker = JWTChecker(SECRET, algorithms=["HS256"], audience="chat", leeway=timedelta(seconds=10))

app = FastAPI()
websockets = WebSocketInterceptor(
    authenticate=jwt_checker,
    token_from=[HeaderToken(), SubprotocolToken(), MessageToken()],
    allowed_origins=["https://app.example.com"],
)
websockets.install(app)


@app.websocket("/ws")
async def greet(connection: Annotated[WebSocketConnection, Depends(current_connection)]) -> None:
    assert connection.user is not None
    await connection.accept()
    await connection.send(Greeting(text=f"hello {connection.user.id}"))
    await connection.closed.wait()


# --- a session in a cookie --------------------------------------------------------------------------------------------

SESSIONS = {"s-1": "ana"}  # stands for your database


async def sessions() -> dict[str, str]:
    return SESSIONS


async def by_session(token: PresentedToken, sessions: Annotated[dict[str, str], Depends(sessions)]) -> User | None:
    user_id = sessions.get(token.value)
    return None if user_id is None else User(id=user_id)


with_cookie = WebSocketRouter("/cookie", authenticate=by_session, token_from=[CookieToken("session")])


@with_cookie.on_connect
async def connected(connection: WebSocketConnection) -> None:
    await connection.join("news")


app.include_router(with_cookie)


# --- tickets ----------------------------------------------------------------------------------------------------------

with_ticket = WebSocketRouter("/ticket", authenticate=None, token_from=[QueryTicket("ticket")])
with_ticket.on_connect(connected)
app.include_router(with_ticket)

Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


async def http_user(bearer: Bearer) -> User:
    return await jwt_checker(PresentedToken(bearer.credentials, "header"))


@app.post("/tickets")
async def ticket(user: Annotated[User, Depends(http_user)]) -> str:
    return await websockets.manager.mint_ticket(user)


# --- signing out ------------------------------------------------------------------------------------------------------


@app.post("/sign-out")
async def sign_out(user: Annotated[User, Depends(http_user)]) -> None:
    if user.token_id is None:
        raise HTTPException(400, "this token has no jti")
    await websockets.manager.revoke(token_id=user.token_id)
