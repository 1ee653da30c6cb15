from pydantic import BaseModel

from jararaca_ws import (
    Microservice,
    Receive,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class Move(WebSocketMessage):
    MESSAGE_ID = "match.move"

    square: int


class Moved(WebSocketMessage):
    MESSAGE_ID = "match.moved"

    square: int


class Ended(WebSocketMessage):
    MESSAGE_ID = "match.ended"


class Score(BaseModel):
    points: int


class GameRoom(Room[Moved | Ended], pattern="match-{number}"):
    number: int


@RestController("/games", tags=["games"])
class GameController:
    @WebSocketEndpoint("/{number}", sends=[GameRoom])
    async def play(self, connection: WebSocketConnection, number: int) -> None:
        """Follow a game, and play."""
        await connection.join(GameRoom(number=number))

    @Receive(Move, sends=[Ended])
    async def move(self, message: Move, number: int) -> Score:
        """Move, which may end the game."""
        await Moved(square=message.square).send(GameRoom(number=number))
        if message.square == 9:
            await Ended().send(GameRoom(number=number))
        return Score(points=message.square)


app = Microservice(controllers=[GameController], interceptors=[WebSocketInterceptor()])
