"""The queues: their names, their arguments, and how they hang together.

::

    exchange (topic) --topic--> <queue> --rejected too often by dying workers--> <queue>.dead
                                  ^  |
               expires, default   |  | a failed attempt: the worker publishes a copy
               exchange           |  v
                                <queue>.delay.<1, 2, 4, ... s>
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ChannelPreconditionFailed

from jararaca_ws.errors import BrokerUnavailable, ConfigurationError
from jararaca_ws.messagebus.controllers import HandlerSpec

__all__ = ["DeclaredQueue", "WorkQueue", "declare", "declare_all", "declare_exchange", "work_queue"]

_MAX_NAME_BYTES = 255
_TIMEOUT_S = 60  # for all queues of an application
_LONGEST_SUFFIX = len(".delay.1234567")
_SERVICE = re.compile(r"[A-Za-z0-9_-]+")
_TAKEN = re.compile(r".*\.(dead|delay\.\d+)")

# Quorum queues hand dead letters on at least once only together with this overflow policy.
_SAFELY_ON = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-dead-letter-exchange": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredQueue:
    """A durable quorum queue, bound to ``topic`` where there is one."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    topic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQueue:
    """The queue that a handler consumes, and the queues behind it."""

    name: str
    topic: str
    delivery_limit: int

    @property
    def work(self) -> DeclaredQueue:
        return DeclaredQueue(
            name=self.name,
            topic=self.topic,
            arguments={
                **_SAFELY_ON,
                "x-dead-letter-routing-key": self.dead.name,
                "x-delivery-limit": self.delivery_limit,
            },
        )

    @property
    def dead(self) -> DeclaredQueue:
        return DeclaredQueue(name=f"{self.name}.dead")

    def delay(self, delay_s: float) -> DeclaredQueue:
        """The delay queue for a delay: the power of two of seconds that is not below it.

        A queue gives out its messages in order, so one with a shorter delay waits behind one with a longer delay;
        within a tier that is bounded by the tier.
        """
        tier_s = 1
        while tier_s < ceil(delay_s):
            tier_s *= 2
        return DeclaredQueue(
            name=f"{self.name}.delay.{tier_s}",
            arguments={**_SAFELY_ON, "x-dead-letter-routing-key": self.name, "x-message-ttl": tier_s * 1000},
        )


def work_queue(handler: HandlerSpec, *, exchange: str, service: str, delivery_limit: int) -> WorkQueue:
    """Name the queue of a handler: one for each event handler, one for each task topic.

    Raises:
        ConfigurationError: the name is too long, or could be the name of another queue.
    """
    if not _SERVICE.fullmatch(service) or service == "task":
        raise ConfigurationError(
            f"the microservice's name {service!r} cannot be part of a queue's name",
            "use letters, digits, _ and - (and not the word task)",
        )
    name = f"{exchange}.task.{handler.topic}" if handler.is_task else f"{exchange}.{service}.{handler.name}"
    if len(name.encode()) + _LONGEST_SUFFIX > _MAX_NAME_BYTES or _TAKEN.fullmatch(name):
        raise ConfigurationError(
            f"{handler} needs the queue {name!r}, which is too long, or named like a delay or dead-letter queue",
            "change the task's MESSAGE_TOPIC" if handler.is_task else "give the handler another name=",
        )
    return WorkQueue(name=name, topic=handler.topic, delivery_limit=delivery_limit)


async def declare_exchange(channel: AbstractChannel, exchange: str) -> AbstractExchange:
    return await channel.declare_exchange(exchange, ExchangeType.TOPIC, durable=True)


async def declare(channel: AbstractChannel, exchange: str, queue: DeclaredQueue) -> AbstractQueue:
    """Make the queue where it does not exist."""
    arguments = {"x-queue-type": "quorum", **queue.arguments}
    declared = await channel.declare_queue(queue.name, durable=True, arguments=arguments)
    if queue.topic is not None:
        await declared.bind(exchange, queue.topic)
    return declared


async def declare_all(connection: AbstractConnection, exchange: str, queues: list[WorkQueue]) -> None:
    """Make what the handlers need before anything is consumed.

    Raises:
        ConfigurationError: an exchange or a queue exists with other arguments, or may not be made.
        BrokerUnavailable: the connection was lost meanwhile, or the broker does not answer.
    """
    what = f"the exchange {exchange!r}"
    try:
        async with asyncio.timeout(_TIMEOUT_S), connection.channel() as channel:
            await declare_exchange(channel, exchange)
            for queue in queues:
                # The dead-letter queue first: the work queue must never be without it.
                for each in (queue.dead, queue.work):
                    what = f"the queue {each.name!r}"
                    await declare(channel, exchange, each)
    except (ChannelPreconditionFailed, ChannelAccessRefused) as error:
        raise ConfigurationError(
            f"RabbitMQ refuses {what}: {error}",
            "where it exists with other arguments, choose those, or delete it when it is empty",
        ) from error
    except (AMQPError, ConnectionError, TimeoutError) as error:
        raise BrokerUnavailable(f"{what} could not be made: {type(error).__name__}: {error}") from error
