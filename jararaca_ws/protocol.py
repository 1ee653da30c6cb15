"""The wire: envelopes and frames, control messages, close codes, and what instances say to each other.

The only module that knows wire keys. ``docs/protocol.md`` is its prose, ``tests/vectors`` pins it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import from_json, to_json

from jararaca_ws.errors import InvalidMessage, MessageIdUnset, MessageNotEncodable, quoted
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessageBase, message_class

__all__ = [
    "SUBPROTOCOL",
    "CloseCode",
    "ErrorMessage",
    "Frame",
    "Gap",
    "decode",
    "decode_publication",
    "encode",
    "encode_publication",
]

SUBPROTOCOL = "jararaca.v1"
"""A client that offers this subprotocol also understands control messages."""


class CloseCode(IntEnum):
    """Why a socket is closed.

    4000-4499: come back, with backoff. 4500-4999: do not come back. Below 4000: as RFC 6455 has it. The private
    codes are those of Centrifugo plus 1000.
    """

    NORMAL = 1000
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    SHUTDOWN = 4001
    SLOW_CONSUMER = 4008
    BAD_REQUEST = 4501
    DISCONNECTED = 4503


class Frame:
    """The encoded bytes of one envelope: made once for each message, shared by all connections that get it.

    Attributes:
        data: UTF-8 text, or any bytes where ``binary``.
    """

    __slots__ = ("_text", "binary", "data")

    #: What a queued frame costs beside its bytes; counted, so that empty frames are bounded too.
    OVERHEAD: ClassVar[int] = 64

    def __init__(self, data: bytes, *, binary: bool = False) -> None:
        self.data = data
        self.binary = binary
        # None until a server that wants text asks for it.
        self._text: str | None = None

    @classmethod
    def of_text(cls, data: bytes) -> Frame:
        """A text frame.

        Raises:
            UnicodeDecodeError: the bytes are not UTF-8.
        """
        frame = cls(data)
        frame._text = data.decode()
        return frame

    @property
    def text(self) -> str:
        """The text, decoded at most once for all connections."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text

    @property
    def size(self) -> int:
        """Bytes that the frame takes in an outbound queue."""
        return len(self.data) + self.OVERHEAD


class Gap(WebSocketMessageBase):
    """Control message: messages to this room may have been missed (None: messages to everybody)."""

    MESSAGE_ID: ClassVar[str] = "jararaca.gap"

    room: str | None


class ErrorMessage(WebSocketMessageBase):
    """Control message: what the client sent was refused. Never holds what it sent.

    Attributes:
        code: stable, for programs.
        id: finds the matching line of the server's log.
    """

    MESSAGE_ID: ClassVar[str] = "jararaca.error"

    code: str
    id: str


# --- envelopes --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _head(message_id: str) -> bytes:
    return b'{"MESSAGE_ID":' + to_json(message_id) + b',"message":'


def encode(message: WebSocketMessageBase) -> Frame:
    """Encode a message, once for all who will get it.

    Raises:
        MessageIdUnset: its class has no ``MESSAGE_ID``.
        MessageNotEncodable: it holds NaN, infinity, or a value that JSON has no word for.
    """
    cls = type(message)
    if cls.MESSAGE_ID == UNSET_MESSAGE_ID:
        raise MessageIdUnset(cls)
    try:
        body = cls.__pydantic_serializer__.to_json(message)
    except ValueError as error:  # PydanticSerializationError among them
        raise MessageNotEncodable(cls, quoted(str(error))) from error
    if b"NaN" in body or b"Infinity" in body or (b"null" in body and _nests_models(cls)):
        _refuse_non_finite(message, body)
    return Frame(_head(cls.MESSAGE_ID) + body + b"}")


@lru_cache(maxsize=4096)
def _nests_models(cls: type[WebSocketMessageBase]) -> bool:
    # A nested model of the user's own does not inherit our refusal of NaN: pydantic writes its NaN as null.
    try:
        return "$defs" in cls.model_json_schema(mode="serialization")
    except Exception:
        return True


def _refuse_non_finite(message: WebSocketMessageBase, body: bytes) -> None:
    cls = type(message)
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MessageNotEncodable(cls, "it holds NaN or infinity") from error
    if _nests_models(cls) and not _finite(message.model_dump()):
        raise MessageNotEncodable(cls, "a model in it holds NaN or infinity")


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_finite, value))
    return True


class _Head(BaseModel):
    MESSAGE_ID: str


_head_adapter = TypeAdapter(_Head)


@lru_cache(maxsize=4096)
def _envelope(cls: type[WebSocketMessageBase]) -> TypeAdapter[Any]:
    model = create_model("Envelope", __config__=ConfigDict(extra="ignore"), message=(cls, ...))
    return TypeAdapter(model)


def decode(raw: str | bytes) -> WebSocketMessageBase:
    """Decode what a client sent. Control messages (``jararaca.``) are not taken from a client here.

    Raises:
        InvalidMessage: with code ``bad_request`` (not an envelope, or its fields do not fit) or ``unknown_type``.
    """
    try:
        message_id = _head_adapter.validate_json(raw).MESSAGE_ID
    except ValidationError as error:
        raise InvalidMessage("bad_request", _problem(error)) from None
    cls = None if message_id.startswith("jararaca.") else message_class(message_id)
    if cls is None:
        raise InvalidMessage("unknown_type", f"no message class has the MESSAGE_ID {quoted(message_id)}")
    try:
        message: WebSocketMessageBase = _envelope(cls).validate_json(raw).message
    except ValidationError as error:
        raise InvalidMessage("bad_request", f"{quoted(message_id)}: {_problem(error)}") from None
    return message


def _problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    # Both may hold what the client wrote: a key of its own making, a piece of its JSON.
    return quoted(f"{where}: {first['msg']}" if where else first["msg"])


# --- what instances say to each other ---------------------------------------------------------------------------------
#
# A publication is one line of header and then the frame's bytes. To one room: `1`. To several: `1` and a JSON array of
# a unique id and the rooms; it is published once for each room, and an instance delivers the first copy that it reads
# to the union of them all and drops the others by the id.

_VERSION = b"1"
_several = TypeAdapter(tuple[str, list[str]])


def encode_publication(rooms: Sequence[str], data: bytes) -> bytes:
    """Frame bytes and the rooms they are for, as one instance publishes them to the others."""
    if len(rooms) == 1:
        return _VERSION + b"\n" + data
    return _VERSION + to_json((secrets.token_urlsafe(12), rooms)) + b"\n" + data


def decode_publication(room: str, payload: bytes) -> tuple[str | None, list[str], bytes]:
    """What `encode_publication` made, as it came through ``room``.

    Returns:
        The id where there are several rooms (else None), the rooms, and the frame's bytes.

    Raises:
        ValueError: it is not a publication, or one of another version.
    """
    header, newline, data = payload.partition(b"\n")
    if not newline or header[:1] != _VERSION:
        raise ValueError("not a publication of version 1")
    if len(header) == 1:
        return None, [room], data
    publication_id, rooms = _several.validate_json(header[1:])
    return publication_id, rooms, data
