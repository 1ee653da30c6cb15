"""The message bus on RabbitMQ."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta

from jararaca_ws.errors import BrokerUnavailable, ConfigurationError
from jararaca_ws.health import Health
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.message import Message
from jararaca_ws.messagebus.publisher import MAX_MESSAGE_BYTES, Dispatch, EncodedMessage, encode
from jararaca_ws.messagebus.rabbitmq_connection import RabbitMQConnection, broker_url
from jararaca_ws.messagebus.rabbitmq_consuming import QueueConsumer
from jararaca_ws.messagebus.rabbitmq_publishing import RabbitMQPublisher
from jararaca_ws.messagebus.rabbitmq_topology import WorkQueue, declare_all, work_queue
from jararaca_ws.microservice.config import DEFAULT_NAME

__all__ = ["RabbitMQMessageBus"]

_EXCHANGE = re.compile(r"(?!amq\.)[A-Za-z0-9_.-]{1,100}")


class RabbitMQMessageBus:
    """Messages travel through RabbitMQ (3.10 or newer); handlers run in ``jararaca-ws worker``.

    At least once: a publish returns when the broker has the message on disk, a message is acknowledged after its
    handler and everything it staged succeeded. Between the two a crash repeats, it never loses. One queue keeps its
    order as long as its handler has ``concurrency=1``, one worker runs it and nothing is retried.

    All queues are durable quorum queues: ``<exchange>.<service>.<handler>`` for each event handler,
    ``<exchange>.task.<topic>`` for each task, ``<queue>.delay.<seconds>`` for retries, ``<queue>.dead`` for dead
    letters, whose headers ``x-jararaca-reason``, ``-error-type``, ``-error-id`` and ``-attempts`` say why (the
    traceback is in the worker's log, under the error id). Nothing empties the dead letters but you.

    Args:
        url: ``amqp://user:password@host:5672/vhost``.
        exchange: the topic exchange, and the first part of every queue's name: systems that share a broker differ in
            it.
        prefetch: how many messages a consumer holds, at least the handler's concurrency. More than that hides the
            round trip of the acknowledgement (1: about 1,300 messages/s, 16: 7,000/s, of one handler that does nothing,
            on loopback), but messages that merely wait behind one that kills the worker count as delivered just as
            often, and go to the dead letters with it; and a slow handler hoards what another worker could do.
        publish_timeout: how long a publish is held and tried again while the broker cannot be reached or does not
            confirm it, before `BrokerUnavailable`.
        max_held: how many publishes may wait at once; beyond it they fail at once.
        delivery_limit: how often a message is delivered again after its worker died or lost its connection, before
            the broker itself puts it to the dead letters (then only with RabbitMQ's own ``x-death`` header).
        consumer_timeout: the broker's setting of that name. Each handler's timeout must be below it.
        connect_timeout: for one attempt to connect.
        max_message_bytes: longer bodies are refused by `publish`, and go to the dead letters when others sent them.

    Raises:
        ConfigurationError: the address is no AMQP address, or a number is out of range.
    """

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        exchange: str = "jararaca",
        prefetch: int = 1,
        publish_timeout: timedelta = timedelta(seconds=10),
        max_held: int = 1_000,
        delivery_limit: int = 5,
        consumer_timeout: timedelta = timedelta(minutes=30),
        connect_timeout: timedelta = timedelta(seconds=10),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        if prefetch < 1 or max_held < 1 or delivery_limit < 0:
            raise ConfigurationError("prefetch and max_held must be at least 1, delivery_limit at least 0")
        if not _EXCHANGE.fullmatch(exchange):
            raise ConfigurationError(
                f"exchange={exchange!r} cannot be used",
                "use 1 to 100 letters, digits, _ . and -, not beginning with amq.",
            )
        self.max_message_bytes = max_message_bytes
        self._url = broker_url(url)
        self._exchange = exchange
        self._prefetch = prefetch
        self._publish_timeout = publish_timeout
        self._max_held = max_held
        self._delivery_limit = delivery_limit
        self._consumer_timeout = consumer_timeout
        self._connect_timeout = connect_timeout
        # Made at the start and gone at the end: what asyncio gives belongs to one event loop.
        self._publisher: RabbitMQPublisher | None = None
        self._connections: list[RabbitMQConnection] = []  # publishing, consuming
        self._consumers: list[QueueConsumer] = []

    @property
    def healthy(self) -> bool:
        """Whether it is started, its connections answer, and each handler is being given messages."""
        return all(health.healthy for health in self.health())

    def health(self) -> list[Health]:
        reason = ""
        if self._publisher is None:
            reason = "it is not started"
        elif not all(connection.healthy for connection in self._connections):
            reason = "it does not answer"
        elif not all(consumer.healthy for consumer in self._consumers):
            reason = "not every handler is given messages"
        return [Health(name="rabbitmq", healthy=not reason, reason=reason)]

    async def start(self) -> None:
        if self._publisher is None:
            connection = await self._connect("publishing")
            self._publisher = RabbitMQPublisher(connection, self._exchange, self._publish_timeout, self._max_held)

    async def stop(self) -> None:
        await self.stop_consuming(timedelta(0))
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            await publisher.stop()
        await self._disconnect(self._connections)

    async def publish(self, message: Message) -> None:
        await self.publish_all([encode(message, self.max_message_bytes)])

    async def publish_all(self, messages: Sequence[EncodedMessage]) -> None:
        await self._started().publish_all(messages)

    async def consume(self, handlers: Sequence[HandlerSpec], dispatch: Dispatch, *, service: str) -> None:
        if service == DEFAULT_NAME:
            raise ConfigurationError(
                f"the queues of a microservice begin with its name, and {DEFAULT_NAME!r} is the name that everyone has",
                "two services with one name take each other's events: write Microservice(name=...)",
            )
        publisher = self._started()
        queues = [self._queue_of(handler, service) for handler in handlers]
        connection = await self._connect("consuming")
        await declare_all(await connection.get(), self._exchange, queues)
        for handler, queue in zip(handlers, queues, strict=True):
            consumer = QueueConsumer(
                handler,
                queue,
                dispatch,
                connection=connection,
                publisher=publisher,
                exchange=self._exchange,
                prefetch=self._prefetch,
                max_message_bytes=self.max_message_bytes,
            )
            self._consumers.append(consumer)
            consumer.start()

    async def stop_consuming(self, grace: timedelta) -> None:
        consumers, self._consumers = self._consumers, []
        await asyncio.gather(*(consumer.stop(grace.total_seconds()) for consumer in consumers))
        await self._disconnect(self._connections[1:])

    def _started(self) -> RabbitMQPublisher:
        if self._publisher is None:
            raise BrokerUnavailable("the bus is not started: `await bus.start()` first, and `bus.stop()` at the end")
        return self._publisher

    def _queue_of(self, handler: HandlerSpec, service: str) -> WorkQueue:
        if handler.timeout >= self._consumer_timeout:
            raise ConfigurationError(
                f"the timeout of {handler} is not below RabbitMQ's consumer_timeout ({self._consumer_timeout})",
                "shorten it, or raise consumer_timeout, in the broker and in RabbitMQMessageBus",
            )
        return work_queue(handler, exchange=self._exchange, service=service, delivery_limit=self._delivery_limit)

    async def _connect(self, purpose: str) -> RabbitMQConnection:
        connection = RabbitMQConnection(self._url, purpose, self._connect_timeout)
        await connection.start()
        self._connections.append(connection)
        return connection

    async def _disconnect(self, connections: list[RabbitMQConnection]) -> None:
        for connection in list(connections):
            self._connections.remove(connection)
            await connection.stop()
