from typing import Annotated

from fastapi import Query

from jararaca_ws import (
    Get,
    Microservice,
    PresenceSettings,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    use_ws_manager,
)


@RestController("/documents")
class DocumentController:
    @WebSocketEndpoint("/{document}")
    async def edit(self, connection: WebSocketConnection, document: str, name: Annotated[str, Query()]) -> None:
        await connection.identify(name)  # of the token of your users, rather
        await connection.set_metadata({"colour": "teal"})
        await connection.join(document)
        await connection.watch_presence(document)
        await connection.closed.wait()

    @Get("/{document}/readers")
    async def readers(self, document: str) -> list[str | None]:
        return [entry.user_id for entry in await use_ws_manager().presence(document)]


app = Microservice(
    controllers=[DocumentController],
    interceptors=[WebSocketInterceptor(presence=PresenceSettings())],
)
