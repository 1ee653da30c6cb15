"""The message bus: what one must do, and how a message becomes bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable
from uuid import uuid4

from jararaca_ws.errors import MessageError, MessageNotEncodable, quoted
from jararaca_ws.messagebus.attempt import Attempt, Outcome
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.message import Message
from jararaca_ws.staging import Stage
from jararaca_ws.wire.protocol import is_finite

__all__ = ["MAX_MESSAGE_BYTES", "Dispatch", "EncodedMessage", "MessageBus", "StagedPublisher", "encode"]

MAX_MESSAGE_BYTES = 1024 * 1024

Dispatch = Callable[[HandlerSpec, Attempt], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedMessage:
    """A message as it was when it was published.

    Attributes:
        body: its JSON.
        message_id: unique; the same at every delivery.
    """

    topic: str
    body: bytes
    message_id: str


@runtime_checkable
class MessageBus(Protocol):
    """What brings messages from `Message.publish` to the handlers.

    A message is published at the moment when the bus has accepted it: from then on each handler of its topic gets it
    at least once, in the order of publishing as far as one publisher and one handler with ``concurrency=1`` go.
    """

    @property
    def embedded(self) -> bool:
        """Whether handlers run in the serving process, since the messages exist nowhere else."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """The longest body that is accepted, either way."""
        ...

    async def start(self) -> None:
        """Be ready to publish.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
        """
        ...

    async def stop(self) -> None:
        """Leave no task and no connection behind. Safe to call twice, and when it was never started."""
        ...

    async def publish(self, message: Message) -> None:
        """Publish one message, now.

        Raises:
            BrokerUnavailable: it was not confirmed in time.
            Unroutable: no queue is bound to its topic.
        """
        ...

    async def publish_all(self, messages: Sequence[EncodedMessage]) -> None:
        """Publish what a unit of work has staged, in order; the first that fails ends it.

        Raises:
            BrokerUnavailable, Unroutable: as `publish`. Those before the failed one are published.
        """
        ...

    async def consume(self, handlers: Sequence[HandlerSpec], dispatch: Dispatch, *, service: str) -> None:
        """Begin to handle messages, and return.

        Args:
            handlers: from `collect_handlers`.
            dispatch: runs a handler; it raises nothing but ``CancelledError``.
            service: the microservice's name; two services that handle one event both get it.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
            ConfigurationError: a queue cannot be made as it should be.
        """
        ...

    async def stop_consuming(self, grace: timedelta) -> None:
        """Take no more messages, let running handlers finish for ``grace``, cancel the rest and give theirs back."""
        ...


class StagedPublisher:
    """What `Message.publish` uses in a unit of work: it encodes now and leaves the sending to the end."""

    __slots__ = ("_max_bytes", "_stage")

    def __init__(self, stage: Stage[EncodedMessage], max_bytes: int) -> None:
        self._stage = stage
        self._max_bytes = max_bytes

    async def publish(self, message: Message) -> None:
        encoded = encode(message, self._max_bytes)
        self._stage.add(encoded, len(encoded.body))


def encode(message: Message, max_bytes: int = MAX_MESSAGE_BYTES) -> EncodedMessage:
    """Make a message's bytes, and give it its id.

    Raises:
        MessageError: its class has no ``MESSAGE_TOPIC``.
        MessageNotEncodable: it holds NaN, infinity, a value of a wrong type, one that JSON has no word for, or more
            than ``max_bytes``.
    """
    cls = type(message)
    topic: str | None = getattr(cls, "MESSAGE_TOPIC", None)
    if topic is None:
        raise MessageError(
            f"{cls.__module__}.{cls.__qualname__} has no MESSAGE_TOPIC, so it cannot be published: set one on the class"
        )
    try:
        body = message.model_dump_json(warnings="error").encode()
    except ValueError as error:  # PydanticSerializationError among them
        raise MessageNotEncodable(cls, quoted(str(error))) from error
    # Assignment and nested models of the user's own get NaN past `allow_inf_nan`, and pydantic writes it as null.
    if not is_finite(message.model_dump()):
        raise MessageNotEncodable(cls, "it holds NaN or infinity")
    if len(body) > max_bytes:
        raise MessageNotEncodable(cls, f"its JSON has {len(body)} bytes, more than the bus takes ({max_bytes})")
    return EncodedMessage(topic=topic, body=body, message_id=str(uuid4()))
