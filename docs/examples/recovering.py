from datetime import timedelta

from jararaca_ws import (
    Get,
    Microservice,
    Post,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    recoverable,
    use_ws_manager,
)


class Said(WebSocketMessage):
    MESSAGE_ID = "chat.line"
    DELIVERY = recoverable(size=100, ttl=timedelta(minutes=5))

    text: str


@RestController("/rooms")
class RoomController:
    @WebSocketEndpoint("/{room}/ws")
    async def listen(self, connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)  # only this lets a client in, also one that comes back
        await connection.closed.wait()

    @Post("/{room}", status_code=202)
    async def say(self, room: str, text: str) -> None:
        await Said(text=text).send(room)

    @Get("/{room}")
    async def newest(self, room: str) -> list[str]:
        """For clients that do not recover: what they read first, and after each connect."""
        history = await use_ws_manager().history(room, limit=50)
        return [entry.message.text for entry in history.messages if isinstance(entry.message, Said)]


app = Microservice(controllers=[RoomController], interceptors=[WebSocketInterceptor()])
