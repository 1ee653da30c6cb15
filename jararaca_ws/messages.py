"""Typed messages to rooms."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from jararaca_ws.context import use_ws_manager, use_ws_message_sender
from jararaca_ws.delivery import Delivery, ephemeral
from jararaca_ws.errors import ConfigurationError, DuplicateMessageId, quoted
from jararaca_ws.typed_rooms import Room, names_for

if TYPE_CHECKING:
    from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["UNSET_MESSAGE_ID", "WebSocketMessage", "WebSocketMessageBase", "check_message_ids", "message_class"]

UNSET_MESSAGE_ID = "__UNSET__"
_RESERVED_PREFIX = "jararaca."
_MAX_ID_LENGTH = 255

# Weak, so that a class made in a function (in a test, say) goes when nobody uses it any more.
_classes: weakref.WeakSet[type[WebSocketMessageBase]] = weakref.WeakSet()
_class_of_id: weakref.WeakValueDictionary[str, type[WebSocketMessageBase]] = weakref.WeakValueDictionary()


class WebSocketMessageBase(BaseModel):
    """What travels in an envelope: a pydantic model with a ``MESSAGE_ID``.

    ``DELIVERY`` says what becomes of it when a reader is slow or away: see `ephemeral`, `latest` and `recoverable`. A
    class without a ``MESSAGE_ID`` may exist, as an abstract base, but cannot be sent. A subclass inherits the id
    of its parent. NaN and infinity are refused: JSON has no word for them. So are fields that the class does not have,
    unless its ``model_config`` says ``extra="ignore"``.

    Raises:
        ConfigurationError: when the class is created, for an id that is not a string of 1 to 255 printable
            characters, or that begins with the reserved prefix ``jararaca.``.
    """

    model_config = ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants", extra="forbid")

    MESSAGE_ID: ClassVar[str] = UNSET_MESSAGE_ID
    DELIVERY: ClassVar[Delivery] = ephemeral()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        message_id = cls.__dict__.get("MESSAGE_ID", UNSET_MESSAGE_ID)
        if message_id == UNSET_MESSAGE_ID:
            return
        _check_id(cls, message_id)
        _classes.add(cls)
        _class_of_id[message_id] = cls


class WebSocketMessage(WebSocketMessageBase):
    """A message that can be sent to rooms from anywhere in a unit of work."""

    async def send(self, *rooms: str | Room[Self], exclude: WebSocketConnection | str | None = None) -> None:
        """Send to every connection that is in at least one of the rooms, on every instance; to each once.

        In an HTTP request and in a message-bus handler the message is staged: it leaves when the unit of work
        succeeds, in order with the others, and never when it fails. In a WebSocket handler, and where only a
        manager is bound (a script), it leaves at once. The message is encoded here, so later changes to it
        change nothing.

        Delivery is at most once, in order for each room and sender; what may have been missed is reported as a gap.
        A message of a `recoverable` type is delivered once to each connection, in the order of the room's history.

        ``exclude`` is a connection, or its id, that does not get it: the sender's own, say.

        Raises:
            BadConnectionId: what is excluded is none.
            BadRoom: a name is not a room, or no room is given.
            NotCarried: a typed room does not carry it.
            MessageIdUnset: the class has no ``MESSAGE_ID``.
            MessageNotEncodable: a value has no place in a frame.
            NotBound: outside of a unit of work.
            UnitOfWorkOver: in a task that outlived its unit of work; use `send_now` there.
            BackendUnavailable: only where the message leaves at once.
        """
        if exclude is None:
            await use_ws_message_sender().send(names_for(rooms, self), self)
        else:
            await use_ws_message_sender().send(names_for(rooms, self), self, exclude=exclude)

    async def send_now(self, *rooms: str | Room[Self], exclude: WebSocketConnection | str | None = None) -> None:
        """Send without waiting for the unit of work to succeed: for progress reports, and for tasks that outlive it.

        Returns when the backend has accepted the message. Cancellation leaves open whether it did.

        Raises:
            BadConnectionId, BadRoom, NotCarried, MessageIdUnset, MessageNotEncodable, NotBound: as `send`.
            BackendUnavailable: the backend did not accept the message.
        """
        await use_ws_manager().send(names_for(rooms, self), self, exclude=exclude)


def message_class(message_id: str) -> type[WebSocketMessageBase] | None:
    """The class with this ``MESSAGE_ID`` (the latest, where a module was loaded again), or None."""
    return _class_of_id.get(message_id)


def check_message_ids() -> None:
    """Called at start-up.

    Raises:
        DuplicateMessageId: two classes have one ``MESSAGE_ID``. A class that was defined again under its own
            module and name (a reloaded module) does not count.
    """
    if _duplicates():
        gc.collect()  # classes that nobody uses any more, but that refer to themselves, do not count
    for first, second in _duplicates():
        raise DuplicateMessageId(first.MESSAGE_ID, first, second)


def _duplicates() -> list[tuple[type[WebSocketMessageBase], type[WebSocketMessageBase]]]:
    seen: dict[str, type[WebSocketMessageBase]] = {}
    pairs = [(seen.setdefault(cls.MESSAGE_ID, cls), cls) for cls in _in_order(_classes)]
    return [(one, other) for one, other in pairs if _name(one) != _name(other)]


def _name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _in_order(classes: weakref.WeakSet[type[WebSocketMessageBase]]) -> Iterator[type[WebSocketMessageBase]]:
    return iter(sorted(classes, key=_name))


def _check_id(cls: type, message_id: object) -> None:
    where = f"{cls.__module__}.{cls.__qualname__}.MESSAGE_ID"
    if not isinstance(message_id, str) or not message_id.isprintable() or not 0 < len(message_id) <= _MAX_ID_LENGTH:
        raise ConfigurationError(
            f"{where} is {quoted(repr(message_id))}",
            f"it must be a string of 1 to {_MAX_ID_LENGTH} printable characters",
        )
    if message_id.startswith(_RESERVED_PREFIX) and not cls.__module__.startswith("jararaca_ws."):
        raise ConfigurationError(
            f"{where} is {quoted(message_id)}", f"the prefix {_RESERVED_PREFIX!r} is reserved for control messages"
        )
