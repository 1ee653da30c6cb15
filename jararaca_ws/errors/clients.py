"""What clients do that cannot be: what they send, who they are, what they may, and how much."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from jararaca_ws.errors.application import MessageError
from jararaca_ws.errors.root import ErrorCategory, JararacaError, named, quoted
from jararaca_ws.wire.close_codes import CloseCode

__all__ = [
    "AuthenticationFailed",
    "AuthenticationTimeout",
    "BadConnectionId",
    "BadMetadata",
    "BadName",
    "BadRoom",
    "BadUserId",
    "CallError",
    "CallFailed",
    "CallTimeout",
    "InvalidMessage",
    "LimitReached",
    "OriginNotAllowed",
    "PermissionDenied",
    "RateLimited",
    "TokenExpired",
    "UnknownMessage",
]


# --- what they send ---------------------------------------------------------------------------------------------------


class InvalidMessage(MessageError):
    """What a peer sent is not a message that we know.

    Attributes:
        problem: for our log only; never holds the input text.
    """

    category = ErrorCategory.VALIDATION
    code = "bad_request"
    close_code = CloseCode.BAD_REQUEST
    status = 400

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.code}: {self.problem}"


class UnknownMessage(InvalidMessage):
    """It may be a message, but nobody here has this type, or handles it."""

    code = "unknown_type"


class BadMetadata(JararacaError, ValueError):
    """Not the metadata of a connection: an object of JSON, of a bounded size."""

    category = ErrorCategory.VALIDATION
    code = "bad_metadata"
    close_code = CloseCode.BAD_REQUEST
    status = 400

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"this cannot be the metadata of a connection: {self.problem}"


class BadName(JararacaError, ValueError):
    """A name that cannot be used. Such names come from clients mostly: HTTP answers 400, a WebSocket 4501.

    Attributes:
        problem: never holds the name.
    """

    category = ErrorCategory.VALIDATION
    code = "bad_request"
    close_code = CloseCode.BAD_REQUEST
    status = 400
    kind: ClassVar[str] = "a name"

    def __init__(self, name: object, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        shown = quoted(self.name) if isinstance(self.name, str) else f"a {type(self.name).__name__}"
        return f"{shown} is not {self.kind}: {self.problem}"

    @property
    def detail(self) -> str:
        return f"not {self.kind}: {self.problem}"


class BadConnectionId(BadName):
    """Not the id of a connection, as `WebSocketConnection.id` has it."""

    kind = "the id of a connection"


class BadRoom(BadName):
    """Not a room name: a room is 1 to 255 bytes of UTF-8 in NFC, without control or format characters."""

    code = "bad_room"
    kind = "a room"

    @property
    def room(self) -> object:
        return self.name


class BadUserId(BadName):
    """Not a user id: one is 1 to 255 bytes of UTF-8 without control or format characters."""

    kind = "a user id"


# --- who they are, what they may --------------------------------------------------------------------------------------


class AuthenticationFailed(JararacaError):
    """Nobody knows who the client is: it has no token, or none that counts. HTTP answers 401, a WebSocket 4500.

    Attributes:
        problem: for our log only; never holds the token.
    """

    category = ErrorCategory.AUTHENTICATION
    code = "authentication_failed"
    close_code = CloseCode.INVALID_TOKEN
    status = 401

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"authentication failed: {self.problem}"


class AuthenticationTimeout(AuthenticationFailed):
    """The client has not said in time who it is: 4502."""

    code = "authentication_timeout"
    close_code = CloseCode.AUTHENTICATION_TIMEOUT

    def __init__(self, problem: str = "no token came in time") -> None:
        super().__init__(problem)


class TokenExpired(AuthenticationFailed):
    """The token was good once: 4005, and the client comes back with another one."""

    code = "token_expired"
    close_code = CloseCode.TOKEN_EXPIRED

    def __init__(self, problem: str = "the token has expired") -> None:
        super().__init__(problem)


class PermissionDenied(JararacaError):
    """The client may not. HTTP answers 403; a WebSocket handler that it leaves is closed with 4507.

    Attributes:
        what: it may not have or do: the name of a room mostly. For our log only.
    """

    category = ErrorCategory.AUTHORIZATION
    code = "permission_denied"
    close_code = CloseCode.PERMISSION_DENIED
    status = 403

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    @property
    def room(self) -> str:
        """``what``, where that is a room."""
        return self.what

    def __str__(self) -> str:
        return f"permission denied: {quoted(self.what)}"


class OriginNotAllowed(JararacaError):
    """The page that opens the WebSocket is not one of ours: 403, before the handshake is accepted.

    Attributes:
        origin: as the client has it; None where it has none.
    """

    category = ErrorCategory.AUTHORIZATION
    code = "origin_not_allowed"
    close_code = CloseCode.POLICY_VIOLATION
    status = 403

    def __init__(self, origin: str | None) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return "there is no Origin" if self.origin is None else f"the origin {quoted(self.origin)} is not allowed"


# --- how much ---------------------------------------------------------------------------------------------------------


class RateLimited(JararacaError):
    """Too much in too short a time. HTTP answers 429; a client that goes on is closed with 4013.

    Args:
        retry_after: when it may come again; None: it is not known.
        what: there was too much of.
    """

    category = ErrorCategory.RATE_LIMIT
    code = "rate_limited"
    close_code = CloseCode.TOO_MANY_REQUESTS
    status = 429
    retry = True

    def __init__(self, retry_after: timedelta | None = None, what: str = "requests") -> None:
        super().__init__(retry_after, what)
        self.retry_after = retry_after
        self.what = what

    def __str__(self) -> str:
        again = "" if self.retry_after is None else f": again in {self.retry_after.total_seconds():g} s"
        return f"too many {self.what}{again}"


class LimitReached(JararacaError):
    """There are as many as there may be: of connections mostly. HTTP answers 429, a WebSocket 4504.

    Attributes:
        limit: the name of the setting that says how many.
        maximum: what it is.
    """

    category = ErrorCategory.RATE_LIMIT
    code = "limit_reached"
    close_code = CloseCode.CONNECTION_LIMIT
    status = 429
    retry = True

    def __init__(self, limit: str, maximum: int, retry_after: timedelta | None = None) -> None:
        super().__init__(limit, maximum, retry_after)
        self.limit = limit
        self.maximum = maximum
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.limit} is reached: {self.maximum}"


# --- what they are asked ----------------------------------------------------------------------------------------------


class CallError(JararacaError):
    """A client was asked something, and there is no reply. HTTP answers 502."""

    category = ErrorCategory.CONNECTION
    code = "call_failed"
    status = 502


class CallFailed(CallError):
    """A call was answered with an error, or with something else than its reply; or too many wait for this client.

    Attributes:
        reason: the client's own word, at most 64 characters of anything; or ``"bad_reply"``, ``"too_many_calls"`` or
            ``"stopped"``.
        problem: for our log only.
    """

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(reason, problem)
        self.reason = reason
        self.problem = problem

    def __str__(self) -> str:
        return f"the call failed with {quoted(self.reason)}: {self.problem}"


class CallTimeout(CallError):
    """Nobody answered a call in time. Whether the client has seen it is open. HTTP answers 504."""

    code = "call_timeout"
    status = 504
    retry = True

    def __init__(self, request_class: type, timeout: timedelta) -> None:
        super().__init__(request_class, timeout)
        self.request_class = request_class
        self.timeout = timeout

    def __str__(self) -> str:
        return f"nobody answered {named(self.request_class)} within {self.timeout.total_seconds():g} s"
