from fastapi import WebSocket
from pydantic import BaseModel

from jararaca_ws import (
    MemoryWebSocketConnectionBackend,
    Microservice,
    Post,
    RestController,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    use_ws_manager,
)


class ChatMessage(WebSocketMessage):
    MESSAGE_ID = "chat.message"

    username: str
    content: str


class ChatMessageRequest(BaseModel):
    username: str
    content: str


@RestController("/chat")
class ChatController:
    @Post("/{room_id}/message", status_code=202)
    async def send_message(self, room_id: str, request: ChatMessageRequest) -> None:
        await ChatMessage(username=request.username, content=request.content).send(room_id)

    @WebSocketEndpoint("/ws/{room_id}")
    async def chat_endpoint(self, websocket: WebSocket, room_id: str) -> None:
        manager = use_ws_manager()
        await manager.join([room_id], websocket)
        await websocket.accept()
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass  # what the browser has to say comes through REST


app = Microservice(
    name="chat",
    controllers=[ChatController],
    interceptors=[WebSocketInterceptor(backend=MemoryWebSocketConnectionBackend())],
)
