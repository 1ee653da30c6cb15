from chat import ChatController, ChatMessage

from jararaca_ws import (
    MemoryMessageBus,
    Message,
    MessageBusController,
    MessageBusInterceptor,
    MessageHandler,
    MessageOf,
    Microservice,
    Post,
    RestController,
    WebSocketInterceptor,
)


class ReportRequested(Message):
    MESSAGE_TOPIC = "reports.requested"
    MESSAGE_TYPE = "task"

    room_id: str


@RestController("/reports")
class ReportController:
    @Post("/{room_id}", status_code=202)
    async def request_report(self, room_id: str) -> None:
        await ReportRequested(room_id=room_id).publish()


@MessageBusController()
class ReportHandlers:
    @MessageHandler(ReportRequested)
    async def make_report(self, message: MessageOf[ReportRequested]) -> None:
        # Slow work is done here, and its result goes to the browsers.
        await ChatMessage(username="reports", content="the report is ready").send(message.payload().room_id)


app = Microservice(
    name="chat",
    controllers=[ChatController, ReportController, ReportHandlers],
    interceptors=[WebSocketInterceptor(), MessageBusInterceptor(bus=MemoryMessageBus())],
)
