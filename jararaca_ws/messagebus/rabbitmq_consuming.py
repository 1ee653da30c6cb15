"""Consuming one queue of RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from jararaca_ws.errors import BrokerUnavailable, InvalidMessage, quoted
from jararaca_ws.messagebus.attempt import Attempt, Outcome, Retry, Running, malformed
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.publisher import Dispatch
from jararaca_ws.messagebus.rabbitmq_connection import RabbitMQConnection, close, closed
from jararaca_ws.messagebus.rabbitmq_publishing import ATTEMPT, CONTENT_TYPE, MESSAGE_ID, RabbitMQPublisher
from jararaca_ws.messagebus.rabbitmq_topology import WorkQueue, declare, declare_exchange
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["QueueConsumer", "read"]

_log = logging.getLogger("jararaca_ws.messagebus")

_CHECK_INTERVAL_S = 0.5
_SET_UP_TIMEOUT_S = 10


class QueueConsumer:
    """A channel of its own for one queue, and the tasks that run its handler.

    Whatever ends it (a lost connection, a closed channel, a deleted queue) cancels the running handlers, whose
    messages the broker delivers again, and begins it all anew.
    """

    def __init__(
        self,
        handler: HandlerSpec,
        queue: WorkQueue,
        dispatch: Dispatch,
        *,
        connection: RabbitMQConnection,
        publisher: RabbitMQPublisher,
        exchange: str,
        prefetch: int,
        max_message_bytes: int,
    ) -> None:
        self._handler = handler
        self._queue = queue
        self._dispatch = dispatch
        self._connection = connection
        self._publisher = publisher
        self._exchange = exchange
        self._prefetch = max(prefetch, handler.concurrency)
        self._max_message_bytes = max_message_bytes
        self._supervised = Supervised(f"consumer of {queue.name}", self._consume, Backoff(max_s=5.0))
        self._running = Running()
        self._stopping = False
        self._consumer: tuple[AbstractQueue, str] | None = None

    @property
    def healthy(self) -> bool:
        return self._supervised.healthy

    def start(self) -> None:
        self._supervised.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more, let handlers finish for the grace period, cancel the rest; the broker requeues theirs."""
        self._stopping = True
        if self._consumer is not None and grace_s > 0:
            queue, tag = self._consumer
            # What fails here is lost with its channel, a moment from now.
            with suppress(Exception):
                await queue.cancel(tag, timeout=grace_s)
        if not await self._running.none(grace_s):
            _log.warning("%s did not finish within %.1f s and is cancelled", self._handler, grace_s)
        await self._supervised.stop()

    async def _consume(self, supervised: Supervised) -> None:
        connection = await self._connection.get()
        channel = connection.channel(publisher_confirms=False)
        try:
            # Bounded by the prefetch: the broker sends no more than that before it gets an acknowledgement.
            waiting: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            # A broker that has just started can leave these unanswered for ever.
            async with asyncio.timeout(_SET_UP_TIMEOUT_S):
                await channel.initialize()
                await channel.set_qos(prefetch_count=self._prefetch)
                await declare_exchange(channel, self._exchange)
                await declare(channel, self._exchange, self._queue.dead)
                queue = await declare(channel, self._exchange, self._queue.work)
                tag = await queue.consume(waiting.put)
            self._consumer = queue, tag
            supervised.mark_healthy()
            await self._handle_until_gone(channel, tag, waiting)
        finally:
            self._consumer = None
            # Closing the channel is also what gives unacknowledged messages back.
            await close(channel)

    async def _handle_until_gone(
        self, channel: AbstractChannel, tag: str, waiting: asyncio.Queue[AbstractIncomingMessage]
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._handler.concurrency):
                    group.create_task(self._handle_all(waiting))
                group.create_task(self._watch(channel, tag))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _watch(self, channel: AbstractChannel, tag: str) -> None:
        """Raise once the broker sends no more: it closed the channel, or cancelled the consumer."""
        lost = closed(channel)
        consumers: Mapping[str, Any] = (await channel.get_underlay_channel()).consumers  # type: ignore[attr-defined]
        while not lost.done():
            # Not every version of aio-pika tells when the broker cancels a consumer; all of them forget its tag.
            if tag not in consumers and not self._stopping:
                raise BrokerUnavailable(f"the consumer of {self._queue.name} was cancelled (was its queue deleted?)")
            await asyncio.wait([lost], timeout=_CHECK_INTERVAL_S)
        raise BrokerUnavailable(lost.result())

    async def _handle_all(self, waiting: asyncio.Queue[AbstractIncomingMessage]) -> None:
        while True:
            message = await waiting.get()
            if self._stopping:
                continue  # it goes back with the channel
            with self._running:
                await self._handle(message)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            attempt = read(message, self._max_message_bytes, self._handler.max_attempts)
        except InvalidMessage as error:
            await self._settle(message, None, malformed(self._handler, error.problem))
            return
        await self._settle(message, attempt, await self._dispatch(self._handler, attempt))

    async def _settle(self, message: AbstractIncomingMessage, attempt: Attempt | None, outcome: Outcome) -> None:
        """Copy first, acknowledge then: a message is never lost between the two, at worst doubled."""
        headers: dict[str, Any] = {MESSAGE_ID: attempt.message_id} if attempt else {}
        if isinstance(outcome, Retry):
            headers[ATTEMPT] = outcome.attempt
            delay_queue = self._queue.delay(outcome.delay_s)
            await self._publisher.copy(message.body, delay_queue, headers, delay_s=outcome.delay_s)
        elif outcome is not None:
            headers |= {
                "x-jararaca-reason": outcome.reason,
                "x-jararaca-error-type": outcome.error_type,
                "x-jararaca-error-id": outcome.error_id,
                "x-jararaca-attempts": outcome.attempts,
                "x-jararaca-topic": self._queue.topic,
            }
            content_type = message.content_type if isinstance(message.content_type, str) else None
            await self._publisher.copy(message.body, self._queue.dead, headers, content_type=content_type)
        await message.ack()


def read(message: AbstractIncomingMessage, max_message_bytes: int, max_attempts: int) -> Attempt:
    """Check what anyone with access to the broker may have written.

    The attempt number is our own header. A forged one cannot keep a message going for ever: it must be within the
    handler's attempts, and only rises.

    Raises:
        InvalidMessage: the body is too long, no JSON by its content type, or a header of ours is not as we write it.
    """
    if len(message.body) > max_message_bytes:
        raise InvalidMessage(f"its body has {len(message.body)} bytes, at most {max_message_bytes} are taken")
    content_type: object = message.content_type
    if not isinstance(content_type, str) or content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise InvalidMessage(f"its content type is {quoted(str(content_type))}, not {CONTENT_TYPE}")
    number: object = message.headers.get(ATTEMPT, 1)
    if type(number) is not int or not 1 <= number <= max_attempts:
        raise InvalidMessage(f"its header {ATTEMPT} is {quoted(repr(number))}, not 1 to {max_attempts}")
    # Others may publish without an id; then it lasts from the first attempt to the last, not across redeliveries.
    message_id: object = message.headers.get(MESSAGE_ID) or message.message_id or str(uuid4())
    if not isinstance(message_id, str) or len(message_id) > 255:
        raise InvalidMessage(f"its id is {quoted(repr(message_id))}, not a string of at most 255")
    return Attempt(body=message.body, message_id=message_id, number=number)
