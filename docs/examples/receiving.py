from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException

from jararaca_ws import (
    Microservice,
    OnDisconnect,
    Receive,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class Move(WebSocketMessage):
    MESSAGE_ID = "game.move"

    square: int


class Moved(WebSocketMessage):
    MESSAGE_ID = "game.moved"

    square: int
    number: int


class Left(WebSocketMessage):
    MESSAGE_ID = "game.left"

    code: int


class Session:
    """Stands for one of a database."""

    open = 0
    moves: list[int] = []  # noqa: RUF012 - shared, as a database is


async def session() -> AsyncIterator[Session]:
    Session.open += 1
    yield Session()
    Session.open -= 1


@RestController("/games")
class GameController:
    @WebSocketEndpoint("/{game}")
    async def play(self, connection: WebSocketConnection, game: str) -> None:
        await connection.join(game)  # and returns: what the client sends goes to the methods below

    @Receive(Move)
    async def move(self, message: Move, game: str, session: Annotated[Session, Depends(session)]) -> Moved:
        if message.square in session.moves:
            raise HTTPException(409)  # the client is told, and the connection goes on
        session.moves.append(message.square)
        moved = Moved(square=message.square, number=len(session.moves))
        await moved.send(game)  # to all, when this message was handled
        return moved  # to the client that asked with a `ref`, or else to this one, as a message

    @OnDisconnect()
    async def gone(self, game: str, code: int, reason: str) -> None:
        await Left(code=code).send(game)


app = Microservice(controllers=[GameController], interceptors=[WebSocketInterceptor()])
