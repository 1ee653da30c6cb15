"""Publishing to RabbitMQ until it is confirmed, or cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aio_pika.abc import AbstractChannel, AbstractExchange
from aiormq.exceptions import AMQPError, PublishError

from jararaca_ws.errors import BrokerUnavailable, Unroutable
from jararaca_ws.messagebus.publisher import EncodedMessage
from jararaca_ws.messagebus.rabbitmq_connection import RabbitMQConnection
from jararaca_ws.messagebus.rabbitmq_topology import DeclaredQueue, declare, declare_exchange
from jararaca_ws.supervision import Backoff

__all__ = ["ATTEMPT", "CONTENT_TYPE", "MESSAGE_ID", "RabbitMQPublisher"]

_log = logging.getLogger("jararaca_ws.messagebus")

CONTENT_TYPE = "application/json"
ATTEMPT = "x-jararaca-attempt"
MESSAGE_ID = "x-jararaca-message-id"


class RabbitMQPublisher:
    """A channel with publisher confirms, on a connection of its own.

    Of its own, because a broker that is short of memory or disk stops reading from connections that publish: the
    acknowledgements that would help it must not wait behind them.
    """

    def __init__(self, connection: RabbitMQConnection, exchange: str, timeout: timedelta, max_held: int) -> None:
        self._connection = connection
        self._exchange = exchange
        self._timeout_s = timeout.total_seconds()
        self._max_held = max_held
        self._held = 0
        self._backoff = Backoff(max_s=1.0)
        self._opening = asyncio.Lock()
        self._channel: AbstractChannel | None = None
        self._topics: AbstractExchange
        # The delay and dead-letter queues that exist as far as we know.
        self._declared: set[str] = set()
        self._attempts: set[asyncio.Task[Any]] = set()

    async def stop(self) -> None:
        attempts = list(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        self._channel = None

    async def publish(self, message: EncodedMessage) -> None:
        """Publish to the topic's queues.

        Raises:
            BrokerUnavailable: not confirmed within the timeout; or too many publishes wait already.
            Unroutable: no queue is bound to the topic.
        """
        amqp = _persistent(message.body, CONTENT_TYPE, message.message_id, {})
        await self._until_confirmed(amqp, message.topic, to_queue=False)

    async def publish_all(self, messages: Sequence[EncodedMessage]) -> None:
        for message in messages:
            await self.publish(message)

    async def copy(
        self,
        body: bytes,
        queue: DeclaredQueue,
        headers: dict[str, Any],
        *,
        content_type: str | None = CONTENT_TYPE,
        delay_s: float | None = None,
    ) -> None:
        """Put a copy of a delivered message into one of our queues, however long it takes.

        The original stays unacknowledged meanwhile, so cancelling loses nothing.
        """
        # An id of its own: the library tells confirmations by it, and the copies that two handlers make of one event
        # can be on their way at once.
        amqp = _persistent(body, content_type, str(uuid4()), headers, delay_s)
        for delay in Backoff(max_s=5.0).delays():
            try:
                if queue.name not in self._declared:
                    await self._declare(queue)
                await self._until_confirmed(amqp, queue.name, to_queue=True)
            except (Unroutable, BrokerUnavailable, AMQPError, ConnectionError) as error:
                self._declared.discard(queue.name)  # it may have been deleted
                _log.warning("a message cannot be put into %s yet: %s", queue.name, error)
                await asyncio.sleep(delay)
            else:
                return

    async def _declare(self, queue: DeclaredQueue) -> None:
        # On a channel of its own: a refusal closes it.
        async with asyncio.timeout(self._timeout_s):
            connection = await self._connection.get()
            async with connection.channel() as channel:
                await declare(channel, self._exchange, queue)
        self._declared.add(queue.name)

    async def _until_confirmed(self, message: AmqpMessage, routing_key: str, *, to_queue: bool) -> None:
        # An attempt goes on after its caller has given up: a broker that blocks us must not collect them.
        if max(self._held, len(self._attempts)) >= self._max_held:
            raise BrokerUnavailable(f"{self._max_held} publishes wait for it already")
        self._held += 1
        problem = "it confirmed nothing"
        try:
            async with asyncio.timeout(self._timeout_s):
                for delay in self._backoff.delays():
                    problem = await self._attempt(message, routing_key, to_queue=to_queue)
                    if not problem:
                        return
                    await asyncio.sleep(delay)
        except TimeoutError:
            raise BrokerUnavailable(f"not confirmed within {self._timeout_s:g} s: {problem}") from None
        finally:
            self._held -= 1

    async def _attempt(self, message: AmqpMessage, routing_key: str, *, to_queue: bool) -> str:
        """Publish once; "" when it is confirmed, otherwise what went wrong."""
        try:
            channel = await self._open_channel()
        except (AMQPError, ConnectionError, RuntimeError) as refused:
            return f"{type(refused).__name__}: {refused}"
        exchange = channel.default_exchange if to_queue else self._topics
        # In a task of its own, since the caller may be cancelled: cancelled between counting a publish and sending
        # it, aiormq below 7 takes each later confirmation for that of the message before.
        attempt = asyncio.create_task(exchange.publish(message, routing_key, mandatory=True))
        self._attempts.add(attempt)
        attempt.add_done_callback(self._over)
        await asyncio.wait([attempt])
        if attempt.cancelled():
            return "the connection was lost"
        error = attempt.exception()
        if isinstance(error, PublishError):
            raise Unroutable(routing_key) from error
        if isinstance(error, AMQPError | ConnectionError | RuntimeError):
            return f"{type(error).__name__}: {error}"
        if error is not None:
            raise error
        return ""

    def _over(self, attempt: asyncio.Task[Any]) -> None:
        self._attempts.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()  # whoever waited may be gone; then nobody else asks for it

    async def _open_channel(self) -> AbstractChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                connection = await self._connection.get()
                channel = connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.initialize()
                self._topics = await declare_exchange(channel, self._exchange)
                self._channel = channel
            return self._channel


def _persistent(
    body: bytes, content_type: str | None, message_id: str, headers: dict[str, Any], delay_s: float | None = None
) -> AmqpMessage:
    return AmqpMessage(
        body,
        content_type=content_type,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=message_id,
        headers=headers,
        expiration=delay_s,
    )
