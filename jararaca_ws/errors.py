"""Every error that this package raises on purpose.

::

    JararacaError
    ├── ConfigurationError            refused at start-up; nothing runs
    │   ├── DuplicateMessageId        two message classes, one MESSAGE_ID
    │   ├── DuplicateEndpoint         two WebSocket endpoints, one path
    │   ├── DuplicateRoomPattern      two classes of rooms, one name
    │   └── UnresolvableDependency    a constructor parameter that nothing provides
    ├── Unavailable                   who we depend on did not take what was given
    │   ├── BackendUnavailable        the WebSocket backend (Redis)
    │   │   └── PresenceLost          it has forgotten who is in the rooms of this instance
    │   ├── BrokerUnavailable         the message bus (RabbitMQ)
    │   └── Unroutable                the broker has no queue for a published message
    ├── ContextError                  the call needs something that is not bound here
    │   ├── NotBound                  no interceptor has bound the manager or the publisher
    │   ├── UnitOfWorkOver            sent or published after the unit of work had ended
    │   └── StageFull                 one unit of work sent or published too much
    ├── MessageError
    │   ├── MessageIdUnset            the class has no MESSAGE_ID, so it cannot be sent
    │   ├── MessageNotEncodable       NaN, infinity, or a value that JSON has no word for
    │   ├── NotCarried                the typed room does not carry this message
    │   └── InvalidMessage            what a peer sent is not a message that we know
    ├── BadMetadata                   what cannot be the metadata of a connection
    ├── BadName                       a name that cannot be used
    │   ├── BadConnectionId           not the id of a connection
    │   ├── BadRoom                   not a room name
    │   └── BadUserId                 not a user id
    ├── CallError                     a client was asked, and there is no reply
    │   ├── CallFailed                it answered with an error, or with what is no reply
    │   └── CallTimeout               it did not answer in time
    ├── PermissionDenied              a typed room does not let this connection in
    ├── ConnectionClosed              the socket is gone
    └── IllegalTransition             a step that the state does not allow

Errors carry fields and build their sentence in ``__str__``.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Any

__all__ = [
    "BackendUnavailable",
    "BadConnectionId",
    "BadMetadata",
    "BadName",
    "BadRoom",
    "BadUserId",
    "BrokerUnavailable",
    "CallError",
    "CallFailed",
    "CallTimeout",
    "ConfigurationError",
    "ConnectionClosed",
    "ContextError",
    "DuplicateEndpoint",
    "DuplicateMessageId",
    "DuplicateRoomPattern",
    "IllegalTransition",
    "InvalidMessage",
    "JararacaError",
    "MessageError",
    "MessageIdUnset",
    "MessageNotEncodable",
    "NotBound",
    "NotCarried",
    "PermissionDenied",
    "PresenceLost",
    "StageFull",
    "Unavailable",
    "UnitOfWorkOver",
    "Unroutable",
    "UnresolvableDependency",
    "quoted",
]


def quoted(text: str, limit: int = 128) -> str:
    """A string from outside, made safe for one line of a log: escaped, and cut after ``limit`` characters."""
    cut = text if len(text) <= limit else text[:limit]
    return ascii(cut) if cut is text else f"{cut!a}... ({len(text)} characters)"


def _named(target: Any) -> str:
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"


def _again(cls: type[JararacaError], args: tuple[Any, ...], fields: dict[str, Any]) -> JararacaError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(fields)
    return error


class JararacaError(Exception):
    """The root of the tree: catch it to catch everything that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the constructor with `args`, which are not its arguments in every class.
        return _again, (type(self), self.args, self.__dict__)


class ConfigurationError(JararacaError):
    """The application is put together in a way that cannot work.

    Raised while it is being built or started, before it serves anything.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem, cure)
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.problem}: {self.cure}" if self.cure else self.problem


class DuplicateMessageId(ConfigurationError):
    """Two message classes of one application have the same ``MESSAGE_ID``."""

    def __init__(self, message_id: str, first: type, second: type) -> None:
        super().__init__(
            f"MESSAGE_ID {quoted(message_id)} belongs to both {_named(first)} and {_named(second)}",
            "give one of them another MESSAGE_ID",
        )
        self.message_id = message_id
        self.first = first
        self.second = second


class DuplicateEndpoint(ConfigurationError):
    """Two ``@WebSocketEndpoint`` methods would serve the same path."""

    def __init__(self, path: str, first: Any, second: Any) -> None:
        super().__init__(
            f"the WebSocket path {quoted(path)} is claimed by both {_named(first)} and {_named(second)}",
            "give one of them another path",
        )
        self.path = path
        self.first = first
        self.second = second


class DuplicateRoomPattern(ConfigurationError):
    """The patterns of two classes of rooms can make one name, so that the rooms would be one."""

    def __init__(self, first: type, second: type) -> None:
        super().__init__(
            f"a room of {_named(first)} and one of {_named(second)} can have the same name",
            "begin their patterns with different words",
        )
        self.first = first
        self.second = second


class UnresolvableDependency(ConfigurationError):
    """A constructor parameter that the container cannot provide."""

    def __init__(self, target: type, parameter: str, problem: str, cure: str) -> None:
        super().__init__(f"{_named(target)}.__init__ parameter {parameter!r} {problem}", cure)
        self.target = target
        self.parameter = parameter


class Unavailable(JararacaError):
    """A server that we depend on did not take what it was given.

    An HTTP request that ends with it is answered with 503; a bus message is retried.
    """

    server = "a server"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.server} is unavailable: {self.reason}"


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


class MessageIdUnset(MessageError):
    """A class without a ``MESSAGE_ID`` may exist (as an abstract base, say) but cannot be sent."""

    def __init__(self, message_class: type) -> None:
        super().__init__(message_class)
        self.message_class = message_class

    def __str__(self) -> str:
        return f"{_named(self.message_class)} has no MESSAGE_ID of its own, so it cannot be sent: set one on the class"


class MessageNotEncodable(MessageError):
    """A message holds a value that its frame cannot: NaN, infinity, or what JSON has no word for."""

    def __init__(self, message_class: type, problem: str) -> None:
        super().__init__(message_class, problem)
        self.message_class = message_class
        self.problem = problem

    def __str__(self) -> str:
        return f"{_named(self.message_class)} cannot be encoded: {self.problem}"


class NotCarried(MessageError):
    """A typed room carries messages of the types that its class names, and no others."""

    def __init__(self, room_class: type, message_class: type) -> None:
        super().__init__(room_class, message_class)
        self.room_class = room_class
        self.message_class = message_class

    def __str__(self) -> str:
        return f"{_named(self.room_class)} does not carry {_named(self.message_class)}: name it in Room[...]"


class InvalidMessage(MessageError):
    """What a peer sent is not a message that we know.

    Attributes:
        code: ``"bad_request"`` or ``"unknown_type"``: stable, safe to show to the peer.
        problem: for our log only; never holds the input text.
    """

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.code}: {self.problem}"


class BadMetadata(JararacaError, ValueError):
    """Not the metadata of a connection: an object of JSON, of a bounded size."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"this cannot be the metadata of a connection: {self.problem}"


class BadName(JararacaError, ValueError):
    """A name that cannot be used. Such names come from clients mostly: HTTP answers 400, a WebSocket 4501."""

    kind = "a name"

    def __init__(self, name: object, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        shown = quoted(self.name) if isinstance(self.name, str) else f"a {type(self.name).__name__}"
        return f"{shown} is not {self.kind}: {self.problem}"


class BadConnectionId(BadName):
    """Not the id of a connection, as `WebSocketConnection.id` has it."""

    kind = "the id of a connection"


class BadRoom(BadName):
    """Not a room name: a room is 1 to 255 bytes of UTF-8 in NFC, without control or format characters."""

    kind = "a room"

    @property
    def room(self) -> object:
        return self.name


class BadUserId(BadName):
    """Not a user id: one is 1 to 255 bytes of UTF-8 without control or format characters."""

    kind = "a user id"


class CallError(JararacaError):
    """A client was asked something, and there is no reply."""


class CallFailed(CallError):
    """A call was answered with an error, or with something else than its reply; or too many wait for this client.

    Attributes:
        code: the client's own word, at most 64 characters of anything; or ``"bad_reply"`` or ``"too_many_calls"``.
        problem: for our log only.
    """

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem

    def __str__(self) -> str:
        return f"the call failed with {quoted(self.code)}: {self.problem}"


class CallTimeout(CallError):
    """Nobody answered a call in time. Whether the client has seen it is open."""

    def __init__(self, request_class: type, timeout: timedelta) -> None:
        super().__init__(request_class, timeout)
        self.request_class = request_class
        self.timeout = timeout

    def __str__(self) -> str:
        return f"nobody answered {_named(self.request_class)} within {self.timeout.total_seconds():g} s"


class PermissionDenied(JararacaError):
    """A typed room does not let this connection in. HTTP answers 403; a WebSocket handler that it leaves, 4507."""

    def __init__(self, room: str) -> None:
        super().__init__(room)
        self.room = room

    def __str__(self) -> str:
        return f"the room {quoted(self.room)} may not be joined"


class ConnectionClosed(JararacaError):
    """The socket is closed, or is closing.

    A WebSocket handler need not catch it: leaving a handler this way is an ordinary end.
    """

    def __init__(self, connection_id: str, code: int | None = None, reason: str = "") -> None:
        super().__init__(connection_id, code, reason)
        self.connection_id = connection_id
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        code = "" if self.code is None else f" with {self.code}"
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
