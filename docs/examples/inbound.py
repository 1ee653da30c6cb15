from typing import Annotated

from fastapi import Query

from jararaca_ws import (
    Microservice,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class Draw(WebSocketMessage):
    MESSAGE_ID = "board.draw"

    x: int
    y: int


class Clear(WebSocketMessage):
    MESSAGE_ID = "board.clear"


@RestController("/boards")
class BoardController:
    @WebSocketEndpoint("/{board}", accept=False)
    async def draw(self, connection: WebSocketConnection, board: str, name: Annotated[str, Query()]) -> None:
        await connection.identify(name)
        # Joined before it is accepted: once the browser is connected, it misses nothing.
        await connection.join(board)
        await connection.accept()
        async for message in connection:
            match message:
                case Draw():
                    await message.send(board)
                case Clear():
                    await connection.send(message)  # to this connection alone


app = Microservice(controllers=[BoardController], interceptors=[WebSocketInterceptor()])
