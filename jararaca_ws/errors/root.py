"""The root of the tree, what every error of it says of itself, and the errors of start-up."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar

from jararaca_ws.wire.close_codes import CloseCode, may_be_sent

__all__ = [
    "ConfigurationError",
    "DuplicateEndpoint",
    "DuplicateMessageId",
    "DuplicateRoomPattern",
    "ErrorCategory",
    "JararacaError",
    "UnresolvableDependency",
    "named",
    "one_line",
    "quoted",
]

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def quoted(text: str, limit: int = 128) -> str:
    """A string from outside, made safe for one line of a log: escaped, and cut after ``limit`` characters."""
    cut = text if len(text) <= limit else text[:limit]
    return ascii(cut) if cut is text else f"{cut!a}... ({len(text)} characters)"


def one_line(error: BaseException, limit: int = 1024) -> str:
    """What an error says, safe for one line of a log; as it is, where that is safe already, as ours always are."""
    text = str(error)
    return text if text.isprintable() and len(text) <= limit else quoted(text, limit)


def named(target: Any) -> str:
    """What names a class or a function."""
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"


def _again(cls: type[JararacaError], args: tuple[Any, ...], fields: dict[str, Any]) -> JararacaError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(fields)
    return error


class ErrorCategory(StrEnum):
    """What an error is about.

    The first four are the client's doing; their repetition closes its connection: see `WebSocketConnection.refuse`.
    """

    AUTHENTICATION = "authentication"
    AUTHORIZATION = "authorization"
    VALIDATION = "validation"
    RATE_LIMIT = "rate_limit"
    CONNECTION = "connection"
    BACKEND = "backend"
    MESSAGE = "message"
    SYSTEM = "system"


class JararacaError(Exception):
    """The root of the tree: catch it to catch everything that this package raises on purpose.

    Derive from it for errors of your own that a client is to be told. With ``code = "out_of_stock"`` a ``@Receive``
    method that raises it has the client told ``jararaca.error`` with this code; an endpoint that it leaves is closed
    with its ``close_code``; an HTTP request is answered with its ``status``.

    Attributes:
        category: what it is about.
        code: what a client is told: stable, for programs. ``internal_error``: it is nothing that concerns clients, so
            they learn no more than an id, and the log has the traceback.
        close_code: how a WebSocket handler that it leaves is closed.
        status: the HTTP status of an answer, a refused handshake included.
        retry: whether the same may succeed later.
        retry_after: when; None: it is not known.

    Raises:
        ConfigurationError: when a class is made, for what these cannot be.
    """

    category: ClassVar[ErrorCategory] = ErrorCategory.SYSTEM
    code: ClassVar[str] = "internal_error"
    close_code: ClassVar[int] = CloseCode.INTERNAL_ERROR
    status: ClassVar[int] = 500
    retry: ClassVar[bool] = False
    retry_after: timedelta | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        code: Any = cls.code  # whatever was given, as the others
        close_code: Any = cls.close_code
        status: Any = cls.status
        category: Any = cls.category
        if not (isinstance(code, str) and _CODE.fullmatch(code)):
            raise ConfigurationError(f"{named(cls)}.code is {code!r}", "give at most 64 of a-z, 0-9 and _")
        if not (isinstance(close_code, int) and may_be_sent(close_code)):
            raise ConfigurationError(f"{named(cls)}.close_code is {close_code!r}", "give one of 4000 to 4999")
        if not (isinstance(status, int) and 400 <= status <= 599):
            raise ConfigurationError(f"{named(cls)}.status is {status!r}", "give one of 400 to 599")
        if not isinstance(category, ErrorCategory):
            raise ConfigurationError(f"{named(cls)}.category is {category!r}", "give an ErrorCategory")

    @property
    def detail(self) -> str:
        """What a client may read beside the code: of an HTTP answer, or as the reason of a close frame.

        At most 123 bytes, and nothing of what the client sent.
        """
        return self.code.replace("_", " ")

    @property
    def is_internal(self) -> bool:
        """Whether clients learn nothing of it."""
        return self.code == JararacaError.code

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
            f"MESSAGE_ID {quoted(message_id)} belongs to both {named(first)} and {named(second)}",
            "give one of them another MESSAGE_ID",
        )
        self.message_id = message_id
        self.first = first
        self.second = second


class DuplicateEndpoint(ConfigurationError):
    """Two would serve the WebSockets of one path: ``@WebSocketEndpoint`` methods, a `WebSocketRouter` and another."""

    def __init__(self, path: str, first: Any, second: Any) -> None:
        super().__init__(
            f"the WebSocket path {quoted(path)} is claimed by both {named(first)} and {named(second)}",
            "give one of them another path",
        )
        self.path = path
        self.first = first
        self.second = second


class DuplicateRoomPattern(ConfigurationError):
    """The patterns of two classes of rooms can make one name, so that the rooms would be one, with two doors.

    Raised when the application is built, where both are ``client_rooms``; else at the first join of the second.
    """

    def __init__(self, first: type, second: type) -> None:
        super().__init__(
            f"a room of {named(first)} and one of {named(second)} can have the same name",
            "begin their patterns with different words",
        )
        self.first = first
        self.second = second


class UnresolvableDependency(ConfigurationError):
    """A constructor parameter that the container cannot provide."""

    def __init__(self, target: type, parameter: str, problem: str, cure: str) -> None:
        super().__init__(f"{named(target)}.__init__ parameter {parameter!r} {problem}", cure)
        self.target = target
        self.parameter = parameter
