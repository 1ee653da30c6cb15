from datetime import timedelta

from jararaca_ws import (
    Get,
    MemoryWebSocketConnectionBackend,
    Microservice,
    Rate,
    RateLimitInterceptor,
    Receive,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
)


class ChatPosted(WebSocketMessage):
    MESSAGE_ID = "chat.posted"

    text: str


class ReportWanted(WebSocketMessage):
    MESSAGE_ID = "report.wanted"


class TypingNow(WebSocketMessage):
    MESSAGE_ID = "chat.typing"


@RestController("/chat")
class ChatController:
    @WebSocketEndpoint("/ws")
    async def ws(self, connection: WebSocketConnection) -> None:
        await connection.join("chat")

    @Receive(ChatPosted)
    async def posted(self, message: ChatPosted) -> None:
        await message.send("chat")

    @Receive(ReportWanted)
    async def wanted(self, message: ReportWanted) -> None: ...

    @Receive(TypingNow)
    async def typing(self, message: TypingNow) -> None:
        await message.send("chat")

    @Get("/history")
    async def history(self) -> list[str]:
        return []


backend = MemoryWebSocketConnectionBackend()  # or RedisWebSocketConnectionBackend

app = Microservice(
    controllers=[ChatController],
    interceptors=[
        WebSocketInterceptor(backend),
        # 100 in a minute of each user, ten of them at once, on whichever instances.
        RateLimitInterceptor(
            Rate(100, timedelta(minutes=1), burst=10),
            by="user",
            per_type={ReportWanted: Rate(2, timedelta(hours=1))},
            excluded=[TypingNow],
            http=True,
            backend=backend,
        ),
    ],
)
