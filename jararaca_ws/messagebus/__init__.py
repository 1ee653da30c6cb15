"""The message bus: typed messages between services, handled with retries and dead letters."""

from jararaca_ws.messagebus.controllers import HandlerSpec, MessageBusController, MessageHandler, collect_handlers
from jararaca_ws.messagebus.memory import DeadLetter, MemoryMessageBus
from jararaca_ws.messagebus.message import Message, MessageOf
from jararaca_ws.messagebus.publisher import MessageBus
from jararaca_ws.messagebus.rabbitmq import RabbitMQMessageBus
from jararaca_ws.messagebus.worker import MessageBusWorker

__all__ = [
    "Message",
    "MessageOf",
    "MessageBusController",
    "MessageHandler",
    "HandlerSpec",
    "collect_handlers",
    "MessageBus",
    "MemoryMessageBus",
    "DeadLetter",
    "RabbitMQMessageBus",
    "MessageBusWorker",
]
