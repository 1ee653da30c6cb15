"""The wire of who a client is: its token in a message, and what it is told of its time.

``docs/protocol.md`` is its prose.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from jararaca_ws.errors import InvalidMessage
from jararaca_ws.messages import WebSocketMessageBase

__all__ = ["Authenticated", "Expiring", "TokenMessage", "decode_token", "is_token"]

_MARK = '"jararaca.authenticate"'


class TokenMessage(NamedTuple):
    """A token that came in a message.

    Attributes:
        ref: the client wants an answer that names this; None where it asked for none.
    """

    token: str
    ref: str | None

    def __repr__(self) -> str:
        return "TokenMessage(...)"


class _Fields(BaseModel):
    token: str


class _Head(BaseModel):
    MESSAGE_ID: str


class _Envelope(BaseModel):
    MESSAGE_ID: Literal["jararaca.authenticate"]
    message: _Fields
    ref: Annotated[str, Field(max_length=128)] | None = None


_head = TypeAdapter(_Head)
_envelope = TypeAdapter(_Envelope)


def is_token(raw: str) -> bool:
    """Whether it is ``jararaca.authenticate``, as far as can be told without reading it all."""
    if _MARK not in raw:
        return False
    try:
        return _head.validate_json(raw).MESSAGE_ID == "jararaca.authenticate"
    except ValidationError:
        return False


def decode_token(raw: str) -> TokenMessage:
    """What a client shows.

    Raises:
        InvalidMessage: it is something else, or malformed.
    """
    try:
        envelope = _envelope.validate_json(raw)
    except ValidationError as error:
        raise InvalidMessage(f"no jararaca.authenticate: {error.errors()[0]['type']}") from None
    return TokenMessage(envelope.message.token, envelope.ref)


class Authenticated(WebSocketMessageBase):
    """Control message: the token counts, and the connection is this user's.

    Attributes:
        expires_in_ms: how long it counts from now on; None: as long as the connection lasts.
    """

    MESSAGE_ID: ClassVar[str] = "jararaca.authenticated"

    user_id: str
    expires_in_ms: int | None


class Expiring(WebSocketMessageBase):
    """Control message: the token counts for so long yet. Send another one, or the connection is closed with 4005."""

    MESSAGE_ID: ClassVar[str] = "jararaca.expiring"

    expires_in_ms: int
