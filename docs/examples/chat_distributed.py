import os

from chat_bus import ChatController, ReportController, ReportHandlers

from jararaca_ws import (
    MessageBusInterceptor,
    Microservice,
    RabbitMQMessageBus,
    RedisWebSocketConnectionBackend,
    WebSocketInterceptor,
)

app = Microservice(
    name="chat",
    controllers=[ChatController, ReportController, ReportHandlers],
    interceptors=[
        WebSocketInterceptor(backend=RedisWebSocketConnectionBackend(conn=os.environ["REDIS_URL"])),
        MessageBusInterceptor(bus=RabbitMQMessageBus(os.environ["AMQP_URL"])),
    ],
)
