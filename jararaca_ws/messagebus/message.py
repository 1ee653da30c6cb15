"""Typed messages on the bus, and what a handler gets of one."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from jararaca_ws.context import use_bus, use_publisher
from jararaca_ws.errors import ConfigurationError, quoted

__all__ = ["Message", "MessageOf"]

_MAX_TOPIC_BYTES = 255  # an AMQP routing key
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Message(BaseModel):
    """A message on the bus, for the handlers of its topic in any process of the system.

    An ``"event"`` goes to every handler of its topic, each with a queue of its own; a ``"task"`` goes to exactly one
    of the workers that handle its topic. A class without a ``MESSAGE_TOPIC`` may exist, as an abstract base, but
    cannot be published. A subclass inherits the topic of its parent. NaN and infinity are refused: JSON has no word
    for them.

    Delivery is at least once on RabbitMQ (a handler may see a message again, with the same ``message_id``), at most
    once across a restart on the in-memory bus.

    Raises:
        ConfigurationError: when the class is created, for a topic that is not 1 to 255 bytes of dot-separated words
            of ``A-Z a-z 0-9 _ -``, or a ``MESSAGE_TYPE`` that is neither ``"task"`` nor ``"event"``.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    MESSAGE_TOPIC: ClassVar[str]
    MESSAGE_TYPE: ClassVar[Literal["task", "event"]] = "event"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        _check_topic(cls)
        if cls.MESSAGE_TYPE not in ("task", "event"):
            raise ConfigurationError(
                f"{cls.__module__}.{cls.__qualname__}.MESSAGE_TYPE is {quoted(repr(cls.MESSAGE_TYPE))}",
                'it must be "task" or "event"',
            )

    async def publish(self) -> None:
        """Publish to the handlers of the topic.

        In an HTTP request and in a message-bus handler the message is staged: it leaves when the unit of work
        succeeds, in order with the others, and never when it fails. In a WebSocket handler, and where only a bus is
        bound (a script), it leaves at once. It is encoded here, so later changes to it change nothing.

        Raises:
            MessageError: the class has no ``MESSAGE_TOPIC``.
            MessageNotEncodable: a value that JSON has no word for, or more bytes than the bus takes.
            NotBound: outside of a unit of work.
            UnitOfWorkOver: in a task that outlived its unit of work; use `publish_now` there.
            BrokerUnavailable, Unroutable: only where the message leaves at once; a staged one raises them at the
                end of its unit of work, which then fails.
        """
        await use_publisher().publish(self)

    async def publish_now(self) -> None:
        """Publish without waiting for the unit of work to succeed; for tasks that outlive it, too.

        Returns when the broker has confirmed the message. Cancellation leaves open whether it did.

        Raises:
            MessageError, MessageNotEncodable, NotBound: as `publish`.
            BrokerUnavailable: the broker did not confirm it in time; it may have it or not.
            Unroutable: nobody has ever handled this topic, so there is no queue to put the message in.
        """
        await use_bus().publish(self)


_M = TypeVar("_M", bound=Message)


class MessageOf(Generic[_M]):
    """One delivery of a message to one handler.

    Attributes:
        message_id: stays the same when the message is delivered again: the key for "have I done this already?".
        attempt: 1 on the first attempt; up to the handler's ``max_attempts``.
        topic: the ``MESSAGE_TOPIC`` that it was published to.
    """

    __slots__ = ("_payload", "attempt", "message_id", "topic")

    def __init__(self, payload: _M, *, message_id: str, attempt: int, topic: str) -> None:
        self._payload = payload
        self.message_id = message_id
        self.attempt = attempt
        self.topic = topic

    def payload(self) -> _M:
        """The validated message itself."""
        return self._payload


def _check_topic(cls: type[Message]) -> None:
    topic: object = cls.__dict__.get("MESSAGE_TOPIC")
    if topic is None:
        return
    if not isinstance(topic, str) or len(topic) > _MAX_TOPIC_BYTES or not _TOPIC.fullmatch(topic):
        raise ConfigurationError(
            f"{cls.__module__}.{cls.__qualname__}.MESSAGE_TOPIC is {quoted(repr(topic))}",
            f"it must be dot-separated words of A-Z a-z 0-9 _ -, at most {_MAX_TOPIC_BYTES} bytes in all",
        )
