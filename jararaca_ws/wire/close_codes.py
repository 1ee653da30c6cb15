"""Close codes: ours, and which of them may be sent."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode", "check_close", "may_be_sent"]


class CloseCode(IntEnum):
    """Why a socket is closed.

    4000-4499: come back, with backoff. 4500-4999: do not come back. Below 4000: as RFC 6455 has it. The private
    codes are those of Centrifugo plus 1000.
    """

    NORMAL = 1000
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    SHUTDOWN = 4001
    TOKEN_EXPIRED = 4005
    SLOW_CONSUMER = 4008
    INSUFFICIENT_STATE = 4010
    TOO_MANY_REQUESTS = 4013
    INVALID_TOKEN = 4500
    BAD_REQUEST = 4501
    AUTHENTICATION_TIMEOUT = 4502
    DISCONNECTED = 4503
    CONNECTION_LIMIT = 4504
    PERMISSION_DENIED = 4507


def may_be_sent(code: int) -> bool:
    """Whether RFC 6455 allows a close frame with this code."""
    return code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999


def check_close(code: int, reason: str) -> None:
    """Whether RFC 6455 allows a close frame with these.

    Raises:
        ValueError: it does not.
    """
    if not may_be_sent(code):
        raise ValueError(f"{code} is not a close code that may be sent: use 1000, or 4000 to 4999 for your own")
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes of UTF-8")
