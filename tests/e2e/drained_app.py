"""What tests/e2e/test_drain.py serves with plain uvicorn."""

from __future__ import annotations

from jararaca_ws import (
    Get,
    Microservice,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    create_http_server,
    use_ws_manager,
)


class Heap(WebSocketMessage):
    MESSAGE_ID = "test_drain.heap"

    text: str = "x" * 100_000


@RestController("")
class Sockets:
    @Get("/info")
    async def info(self) -> list[int]:
        """How many bytes wait for each connection."""
        return [connection.outbound.size for connection in use_ws_manager().connections]

    @WebSocketEndpoint("/ws/{room}")
    async def listen(self, room: str, connection: WebSocketConnection) -> None:
        await connection.join(room)
        await connection.closed.wait()

    @WebSocketEndpoint("/heap")
    async def heap(self, connection: WebSocketConnection) -> None:
        """More than any buffer takes."""
        while True:
            await connection.send(Heap())


app = create_http_server(Microservice(controllers=[Sockets], interceptors=[WebSocketInterceptor()]))
