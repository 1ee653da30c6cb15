"""What goes wrong on our side: servers that are away, calls in the wrong place, messages that cannot be sent."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import ClassVar

from jararaca_ws.errors.root import ErrorCategory, JararacaError, named, quoted
from jararaca_ws.wire.close_codes import CloseCode

__all__ = [
    "BackendUnavailable",
    "BrokerUnavailable",
    "ConnectionClosed",
    "ContextError",
    "HandlerTimeout",
    "IllegalTransition",
    "MessageError",
    "MessageIdUnset",
    "MessageNotEncodable",
    "NotBound",
    "NotCarried",
    "PresenceLost",
    "StageFull",
    "Unavailable",
    "UnitOfWorkOver",
    "Unroutable",
]


class Unavailable(JararacaError):
    """A server that we depend on did not take what it was given.

    An HTTP request that ends with it is answered with 503; a bus message is retried.
    """

    category = ErrorCategory.BACKEND
    code = "unavailable"
    close_code = CloseCode.TRY_AGAIN_LATER
    status = 503
    retry = True
    retry_after = timedelta(seconds=1)
    server: ClassVar[str] = "a server"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.server} is unavailable: {self.reason}"

    @property
    def detail(self) -> str:
        # The reason may name hosts.
        return f"{self.server} is unavailable: try again"


class BackendUnavailable(Unavailable):
    """The WebSocket backend could not publish, or could not confirm a subscription.

    After it, the message may or may not have reached some browsers: a reply that is lost looks like a
    publish that was never made.
    """

    server = "the WebSocket backend"


class PresenceLost(BackendUnavailable):
    """The backend does not know this instance any more: it was away for too long, or the backend lost its data.

    Raised by a `PresenceStore` only; whoever uses one registers anew, and writes again who is in the rooms.
    """


class BrokerUnavailable(Unavailable):
    """The broker did not confirm a published message within the bound, or cannot be reached."""

    server = "the message broker"


class Unroutable(Unavailable):
    """The broker has no queue for this topic: nobody has ever handled it, so nobody would."""

    server = "a worker for this message"

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"no queue is bound to the topic {quoted(topic)}; start a worker that has a @MessageHandler for it "
            "(once is enough, its queue stays)"
        )
        self.topic = topic


class ContextError(JararacaError):
    """The call needs something that is not bound in this context."""


class NotBound(ContextError):
    """No interceptor has bound what the call needs."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"no {self.what} is bound here: {self.cure}"


class UnitOfWorkOver(ContextError):
    """Something was sent or published through a unit of work that has ended.

    It happens in a task that outlives its HTTP request or bus message. Nothing would flush it any more, so it
    is refused instead of being lost.
    """

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what} after its unit of work had ended, so nothing would flush it: {self.cure}"


class StageFull(ContextError):
    """One unit of work has sent or published more than may be held back until it succeeds."""

    def __init__(self, limit_bytes: int, cure: str) -> None:
        super().__init__(limit_bytes, cure)
        self.limit_bytes = limit_bytes
        self.cure = cure

    def __str__(self) -> str:
        return f"this unit of work holds back {self.limit_bytes} bytes of messages already: {self.cure}"


class MessageError(JararacaError):
    """Something about one message."""

    category = ErrorCategory.MESSAGE


class MessageIdUnset(MessageError):
    """A class without a ``MESSAGE_ID`` may exist (as an abstract base, say) but cannot be sent."""

    def __init__(self, message_class: type) -> None:
        super().__init__(message_class)
        self.message_class = message_class

    def __str__(self) -> str:
        return f"{named(self.message_class)} has no MESSAGE_ID of its own, so it cannot be sent: set one on the class"


class MessageNotEncodable(MessageError):
    """A message holds a value that its frame cannot: NaN, infinity, or what JSON has no word for."""

    def __init__(self, message_class: type, problem: str) -> None:
        super().__init__(message_class, problem)
        self.message_class = message_class
        self.problem = problem

    def __str__(self) -> str:
        return f"{named(self.message_class)} cannot be encoded: {self.problem}"


class NotCarried(MessageError):
    """A typed room carries messages of the types that its class names, and no others."""

    def __init__(self, room_class: type, message_class: type) -> None:
        super().__init__(room_class, message_class)
        self.room_class = room_class
        self.message_class = message_class

    def __str__(self) -> str:
        return f"{named(self.room_class)} does not carry {named(self.message_class)}: name it in Room[...]"


class HandlerTimeout(JararacaError):
    """A handler took longer for a message of a client than it may, and was cancelled. Its client may try again."""

    code = "timeout"
    status = 504
    retry = True

    def __init__(self, handler: str, seconds: float) -> None:
        super().__init__(handler, seconds)
        self.handler = handler
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.handler} took longer than {self.seconds:g} s and was cancelled"


class ConnectionClosed(JararacaError):
    """The socket is closed, or is closing.

    A WebSocket handler need not catch it: leaving a handler this way is an ordinary end.

    Attributes:
        closed_with, reason: how; None where the close code is not known.
    """

    category = ErrorCategory.CONNECTION

    def __init__(self, connection_id: str, closed_with: int | None = None, reason: str = "") -> None:
        super().__init__(connection_id, closed_with, reason)
        self.connection_id = connection_id
        self.closed_with = closed_with
        self.reason = reason

    def __str__(self) -> str:
        code = "" if self.closed_with is None else f" with {self.closed_with}"
        return f"connection {self.connection_id} is closed{code}"


class IllegalTransition(JararacaError):
    """A step that the present state does not allow."""

    def __init__(self, what: str, current: Enum, wanted: Enum) -> None:
        super().__init__(what, current, wanted)
        self.what = what
        self.current = current
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.what} cannot go from {self.current.name} to {self.wanted.name}"
