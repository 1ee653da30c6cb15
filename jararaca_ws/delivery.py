"""Delivery policies: what becomes of a message whose reader is slow, or away. Part of the message type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from jararaca_ws.backends.base import Retention
from jararaca_ws.errors import ConfigurationError

__all__ = ["MAX_HISTORY", "Delivery", "ephemeral", "header_of", "latest", "policy_of", "recoverable", "split"]

_MAX_KEY_BYTES = 255

MAX_HISTORY = 10_000
"""How many messages a room's history may keep: all of it is read at once where an instance has missed all of it."""

_MAX_TTL = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How messages of one type are delivered to a reader that does not keep up. Made by `ephemeral`, `latest` and
    `recoverable`.

    Attributes:
        drop_oldest: the oldest queued messages of such types make room for newer ones.
        key: None, or what tells messages apart of which a slow reader needs only the newest.
        retention: None, or how much of them each room's history keeps.
    """

    drop_oldest: bool = False
    key: Callable[[Any], object] | None = None
    retention: Retention | None = None


def ephemeral(*, drop_oldest: bool = False) -> Delivery:
    """Delivered at most once, and kept nowhere.

    A reader so slow that its outbound queue overflows is closed with 4008. With ``drop_oldest`` it stays, and loses
    the oldest queued messages that allow it; they are counted, and a client that understands control messages is told
    how many with ``jararaca.dropped``.
    """
    return Delivery(drop_oldest=drop_oldest)


def latest(*, key: str | Callable[[Any], object]) -> Delivery:
    """Only the newest message counts: of the queued messages with one key, a slow reader gets the last one.

    Args:
        key: the name of a field, or a function of the message; ``str()`` of its value is the key, within the
            ``MESSAGE_ID``. At most 255 bytes.
    """
    if isinstance(key, str):
        name = key
        if not name.isidentifier():
            raise ConfigurationError(f"latest(key={key!r}) does not name a field", "give a field's name or a function")
        return Delivery(key=lambda message: getattr(message, name))
    return Delivery(key=key)


def recoverable(*, size: int = 100, ttl: timedelta = timedelta(minutes=5)) -> Delivery:
    """Kept in the history of each room that it is sent to: who was away gets it on coming back.

    Each connection gets every one of a room that it is in, once, in the order of the room's history, whatever happens
    between the instances. What cannot be kept to that is said: the connection is closed with 4010, and a client that
    comes back too late is told ``recovered: false``. It needs a backend that keeps histories.

    Args:
        size: how many messages a room keeps, at most 10,000.
        ttl: for how long after its newest one a room keeps them, at most 30 days.
    """
    if not 1 <= size <= MAX_HISTORY:
        raise ConfigurationError(f"recoverable(size={size!r}) cannot be", f"give a whole number, 1 to {MAX_HISTORY}")
    if not timedelta(milliseconds=1) <= ttl <= _MAX_TTL:
        raise ConfigurationError(f"recoverable(ttl={ttl!r}) cannot be", "give a timedelta of at most 30 days")
    return Delivery(retention=Retention(size, ttl // timedelta(milliseconds=1)))


# --- how it travels ---------------------------------------------------------------------------------------------------
#
# A backend carries bytes and knows nothing of policies. A message with the usual policy travels as its frame, which is
# JSON text; any other has one line before it, which begins with a byte that no JSON text begins with. So has what goes
# to all but one connection: its id, in a line before that.

_MARK = b"\x01"
_BUT_MARK = b"\x03"
_header = TypeAdapter(tuple[bool, str | None])


def policy_of(policy: Delivery, message_id: str, message: object) -> tuple[bool, str | None]:
    """Whether older frames may be dropped for this message, and the key that its newer ones replace it by.

    Raises:
        ValueError: the key is too long.
    """
    if policy.key is None:
        return policy.drop_oldest, None
    key = f"{message_id}:{policy.key(message)}"
    if len(key.encode()) > _MAX_KEY_BYTES + len(message_id.encode()) + 1:
        raise ValueError(f"its key is longer than {_MAX_KEY_BYTES} bytes")
    return policy.drop_oldest, key


def header_of(drop_oldest: bool, key: str | None, data: bytes) -> bytes:
    """What goes before a frame's bytes on their way through a backend: nothing, for the usual policy."""
    if not drop_oldest and key is None and not data.startswith((_MARK, _BUT_MARK)):
        return b""
    return _MARK + to_json((drop_oldest, key)) + b"\n"


def all_but(connection_id: str, payload: bytes) -> bytes:
    """A payload for all connections but one."""
    return b"%b%b\n%b" % (_BUT_MARK, connection_id.encode(), payload)


def excluded_id(payload: bytes) -> str | None:
    """The id of the connection that does not get it; None where all do."""
    return payload[1 : payload.find(b"\n")].decode(errors="replace") if payload.startswith(_BUT_MARK) else None


def split(payload: bytes) -> tuple[bool, str | None, bytes]:
    """Whether it may be dropped, its key, and the frame's bytes.

    Raises:
        ValueError: it begins like a header and is none.
    """
    if payload.startswith(_BUT_MARK):
        payload = payload.partition(b"\n")[2]
    if not payload.startswith(_MARK):
        return False, None, payload
    header, newline, data = payload[1:].partition(b"\n")
    if not newline:
        raise ValueError("a header without a frame")
    try:
        drop_oldest, key = _header.validate_json(header)
    except ValidationError as error:
        raise ValueError("not a header") from error
    return drop_oldest, key, data
