"""The wire between server and client: subprotocols, envelopes, control messages.

Only this package knows the keys. ``docs/protocol.md`` is its prose, ``tests/vectors`` pins it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from math import ceil, isfinite
from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_serializer
from pydantic_core import from_json, to_json

from jararaca_ws.delivery import policy_of
from jararaca_ws.errors import (
    InvalidMessage,
    JararacaError,
    MessageIdUnset,
    MessageNotEncodable,
    UnknownMessage,
    quoted,
)
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessageBase, message_class
from jararaca_ws.wire.close_codes import CloseCode
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.packing import can_pack

__all__ = [
    "MSGPACK_SUBPROTOCOL",
    "SUBPROTOCOL",
    "SUBPROTOCOLS",
    "CloseCode",
    "Dropped",
    "ErrorMessage",
    "Gap",
    "PresenceUpdate",
    "PresentIdentity",
    "Shutdown",
    "agreed_subprotocol",
    "decode",
    "decode_json",
    "encode",
    "encode_error",
    "encode_fields",
    "is_control",
    "is_finite",
    "problem_of",
    "refuse_words",
]

SUBPROTOCOL = "jararaca.v1"
"""A client that offers this subprotocol also understands control messages."""

MSGPACK_SUBPROTOCOL = "jararaca.v1.msgpack"
"""The same in msgpack: binary frames, both ways."""

SUBPROTOCOLS = frozenset((SUBPROTOCOL, MSGPACK_SUBPROTOCOL))

_CONTROL = b'{"MESSAGE_ID":"jararaca.'


class Gap(WebSocketMessageBase):
    """Control message: messages to this room may have been missed (None: to everybody, or to the user)."""

    MESSAGE_ID: ClassVar[str] = "jararaca.gap"

    room: str | None


class Dropped(WebSocketMessageBase):
    """Control message: this many messages were dropped here, because the client reads too slowly for all."""

    MESSAGE_ID: ClassVar[str] = "jararaca.dropped"

    count: int


class Shutdown(WebSocketMessageBase):
    """Control message: the instance goes away. The client comes back after this time, so that not all do at once."""

    MESSAGE_ID: ClassVar[str] = "jararaca.shutdown"

    retry_after_ms: int


class PresentIdentity(BaseModel):
    """Who is in a room: a user, or an anonymous connection.

    Attributes:
        identity: tells one from the other, and means nothing else.
        user_id: None where it is an anonymous connection.
        metadata: of the connection of theirs that was written last.
    """

    identity: str
    user_id: str | None
    metadata: dict[str, Any]


class PresenceUpdate(WebSocketMessageBase):
    """Control message: who is in a room that the client watches.

    Attributes:
        kind: ``state``: ``joined`` are all, whatever the client knew before. ``diff``: what has changed since.
            ``count``: too many to be named; the client knows nobody any more.
        count: how many identities there are.
        updated: those that were there already, and whose metadata has changed.
        left: identities.
    """

    MESSAGE_ID: ClassVar[str] = "jararaca.presence"

    room: str
    kind: Literal["state", "diff", "count"]
    count: int
    joined: list[PresentIdentity] = Field(default_factory=list)
    updated: list[PresentIdentity] = Field(default_factory=list)
    left: list[str] = Field(default_factory=list)


class ErrorMessage(WebSocketMessageBase):
    """Control message: what the client sent was refused. Never holds what it sent.

    Attributes:
        code: stable, for programs.
        id: finds the matching line of the server's log.
        retry_after_ms: when the same may succeed; left out where that is not known.
    """

    MESSAGE_ID: ClassVar[str] = "jararaca.error"

    code: str
    id: str
    retry_after_ms: int | None = None

    @model_serializer
    def _without_what_is_not_known(self) -> dict[str, Any]:
        known: dict[str, Any] = {"code": self.code, "id": self.id}
        return known if self.retry_after_ms is None else {**known, "retry_after_ms": self.retry_after_ms}


def agreed_subprotocol(offered: Iterable[str]) -> str | None:
    """Which of ours we agree to: the first that the client offers, but msgpack only where the extra is installed."""
    for name in offered:
        if name == SUBPROTOCOL or (name == MSGPACK_SUBPROTOCOL and can_pack()):
            return name
    return None


# --- envelopes --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _head(message_id: str) -> bytes:
    return b'{"MESSAGE_ID":' + to_json(message_id) + b',"message":'


def is_control(frame: Frame) -> bool:
    """Whether it is one of our own messages, for clients that understand them."""
    return frame.data.startswith(_CONTROL)


def encode(message: WebSocketMessageBase) -> Frame:
    """Encode a message, once for all who will get it.

    Raises:
        MessageIdUnset: its class has no ``MESSAGE_ID``.
        MessageNotEncodable: it holds NaN, infinity, or a value that JSON has no word for.
    """
    cls = type(message)
    if cls.MESSAGE_ID == UNSET_MESSAGE_ID:
        raise MessageIdUnset(cls)
    body = encode_fields(message)
    try:
        drop_oldest, key = policy_of(cls.DELIVERY, cls.MESSAGE_ID, message)
    except (AttributeError, ValueError) as error:
        raise MessageNotEncodable(cls, quoted(str(error))) from error
    return Frame(_head(cls.MESSAGE_ID) + body + b"}", drop_oldest=drop_oldest, key=key)


def encode_error(error: JararacaError | None, error_id: str, ref: str | None) -> Frame:
    """An `ErrorMessage`, with the ref of the message that it is about; of a failure of ours where there is no error."""
    told = error or JararacaError()
    after = told.retry_after
    milliseconds = None if after is None else max(0, ceil(after.total_seconds() * 1000))
    message = ErrorMessage(code=told.code, id=error_id, retry_after_ms=milliseconds)
    if ref is None:
        return encode(message)
    return Frame(b'{"MESSAGE_ID":"jararaca.error","ref":%b,"message":%b}' % (to_json(ref), encode_fields(message)))


def encode_fields(message: WebSocketMessageBase) -> bytes:
    """The fields of a message, without the envelope.

    Raises:
        MessageNotEncodable: as `encode`.
    """
    try:
        body = type(message).__pydantic_serializer__.to_json(message, by_alias=True)
    except ValueError as error:  # PydanticSerializationError among them
        raise MessageNotEncodable(type(message), quoted(str(error))) from error
    if b"NaN" in body or b"Infinity" in body or b"null" in body:
        _refuse_non_finite(message, body)
    return body


def _refuse_non_finite(message: WebSocketMessageBase, body: bytes) -> None:
    """NaN and infinity have no JSON. Of our own fields pydantic writes the words; of other models' it writes null."""
    cls = type(message)
    try:
        if b"NaN" in body or b"Infinity" in body:
            from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MessageNotEncodable(cls, "it holds NaN or infinity") from error
    if b"null" in body and not _is_plain(cls) and not is_finite(message.model_dump()):
        raise MessageNotEncodable(cls, "it holds NaN or infinity in a model or a value of another type")


_PLAIN = (str, int, float, bool, bytes, NoneType, Decimal, date, time, timedelta, UUID, Enum)


def _is_plain(cls: type[WebSocketMessageBase]) -> bool:
    """Whether a null in its JSON can only be a None, because no field holds a model or a value of any type."""
    plain: bool | None = cls.__dict__.get("__jararaca_ws_plain__")
    if plain is None:
        decorators = cls.__pydantic_decorators__
        plain = not (
            decorators.field_serializers or decorators.model_serializers or decorators.computed_fields
        ) and all(not field.metadata and _is_plain_type(field.annotation) for field in cls.model_fields.values())
        cls.__jararaca_ws_plain__ = plain  # type: ignore[attr-defined]  # on the class, so that it goes with it
    return plain


def _is_plain_type(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return True
    if arguments := get_args(annotation):
        return all(argument is Ellipsis or _is_plain_type(argument) for argument in arguments)
    return isinstance(annotation, type) and issubclass(annotation, _PLAIN)


def is_finite(value: Any) -> bool:
    """Whether no NaN and no infinity is in a value, however deep."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, BaseModel):
        return is_finite(value.model_dump())
    return isinstance(value, str | bytes) or not isinstance(value, Iterable) or all(map(is_finite, value))


class _Head(BaseModel):
    MESSAGE_ID: str


_head_adapter = TypeAdapter(_Head)


def _envelope(cls: type[WebSocketMessageBase]) -> TypeAdapter[Any]:
    adapter: TypeAdapter[Any] | None = cls.__dict__.get("__jararaca_ws_envelope__")
    if adapter is None:
        adapter = TypeAdapter(create_model("Envelope", __config__=ConfigDict(extra="ignore"), message=(cls, ...)))
        cls.__jararaca_ws_envelope__ = adapter  # type: ignore[attr-defined]  # on the class, so that it goes with it
    return adapter


def decode(raw: str | bytes) -> WebSocketMessageBase:
    """Decode what a client sent. Control messages (``jararaca.``) are not taken from a client here.

    Raises:
        InvalidMessage: it is no envelope, or its fields do not fit.
        UnknownMessage: no message class has this ``MESSAGE_ID``.
    """
    try:
        refuse_words(raw)
        message_id = _head_adapter.validate_json(raw).MESSAGE_ID
    except ValidationError as error:
        raise InvalidMessage(problem_of(error)) from None
    except ValueError:
        raise InvalidMessage("not JSON: NaN or infinity") from None
    cls = None if message_id.startswith("jararaca.") else message_class(message_id)
    if cls is None:
        raise UnknownMessage(f"no message class has the MESSAGE_ID {quoted(message_id)}")
    try:
        message: WebSocketMessageBase = _envelope(cls).validate_json(raw).message
    except ValidationError as error:
        raise InvalidMessage(f"{quoted(message_id)}: {problem_of(error)}") from None
    return message


def decode_json(raw: str) -> Any:
    """Parse what a client sent, whatever it is.

    Raises:
        InvalidMessage: it is no JSON.
    """
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:  # its text may hold the input
        raise InvalidMessage("not JSON") from None


def refuse_words(raw: str | bytes) -> None:
    """Pydantic takes NaN and infinity where a field does not forbid them; they are not JSON.

    Raises:
        ValueError: it holds them.
    """
    found = ("NaN" in raw or "Infinity" in raw) if isinstance(raw, str) else (b"NaN" in raw or b"Infinity" in raw)
    if found:
        from_json(raw, allow_inf_nan=False)


def problem_of(error: ValidationError) -> str:
    """What is wrong with a peer's message, for our log."""
    # Not the message: it may quote what the client wrote. The place may be a key of its own making.
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return quoted(f"{first['type']} at {where}" if where else first["type"])
