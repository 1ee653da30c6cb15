"""The wire of what a client asks of rooms: to join them, to leave them, and to have something sent to one.

With `protocol` and `retained` the only module that knows wire keys. ``docs/protocol.md`` is its prose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import decode, encode

__all__ = [
    "MAX_REF",
    "JoinRequest",
    "Joined",
    "JoinedRoom",
    "LeaveRequest",
    "Left",
    "MalformedRequest",
    "RoomRequest",
    "SendRequest",
    "Sent",
    "answer_frame",
    "decode_request",
]

MAX_REF = 128
_Name = Annotated[str, Field(max_length=255)]


class RoomNames(BaseModel):
    rooms: Annotated[list[_Name], Field(min_length=1, max_length=128)]


class _Envelope(BaseModel):
    room: _Name
    MESSAGE_ID: str
    message: Any


class _Request(BaseModel):
    """Attributes:
    ref: the client's own name for its request, which the answer bears; None where it gave none.
    """

    ref: Annotated[str, Field(max_length=MAX_REF)] | None = None


class JoinRequest(_Request):
    """All of these rooms, or none."""

    MESSAGE_ID: Literal["jararaca.join"]
    message: RoomNames


class LeaveRequest(_Request):
    MESSAGE_ID: Literal["jararaca.leave"]
    message: RoomNames


class SendRequest(_Request):
    MESSAGE_ID: Literal["jararaca.send"]
    message: _Envelope

    def decoded(self) -> WebSocketMessageBase:
        """What is to be sent.

        Raises:
            InvalidMessage: it is none of the application's messages.
        """
        return decode(to_json({"MESSAGE_ID": self.message.MESSAGE_ID, "message": self.message.message}))


RoomRequest = JoinRequest | LeaveRequest | SendRequest


@dataclass(frozen=True, slots=True)
class MalformedRequest:
    """Attributes:
    problem: for our log only; never holds the input text.
    """

    ref: str | None
    problem: str


class _Head(BaseModel):
    MESSAGE_ID: Literal["jararaca.join", "jararaca.leave", "jararaca.send"]
    ref: Any = None


_head = TypeAdapter(_Head)
_request: TypeAdapter[RoomRequest] = TypeAdapter(Annotated[RoomRequest, Field(discriminator="MESSAGE_ID")])


def decode_request(raw: str) -> RoomRequest | MalformedRequest | None:
    """What a client asks; None where this is another message."""
    if '"jararaca.' not in raw:
        return None
    try:
        head = _head.validate_json(raw)
    except ValidationError:
        return None
    try:
        return _request.validate_json(raw)
    except ValidationError as error:
        ref = head.ref if isinstance(head.ref, str) and len(head.ref) <= MAX_REF else None
        return MalformedRequest(ref, f"malformed {head.MESSAGE_ID}: {error.errors()[0]['type']}")


# --- answers ----------------------------------------------------------------------------------------------------------


class JoinedRoom(BaseModel):
    """Attributes:
    epoch, offset: of the newest message that the room has kept when it was joined; "" and 0 where it keeps none.
    """

    room: str
    epoch: str
    offset: int


class Joined(WebSocketMessageBase):
    """Control message: the client is in these rooms; everything that is sent to them from now on comes."""

    MESSAGE_ID: ClassVar[str] = "jararaca.joined"

    rooms: list[JoinedRoom]


class Left(WebSocketMessageBase):
    """Control message: the client is in these rooms no more."""

    MESSAGE_ID: ClassVar[str] = "jararaca.left"

    rooms: list[str]


class Sent(WebSocketMessageBase):
    """Control message: what the client had to send to this room has been accepted for it."""

    MESSAGE_ID: ClassVar[str] = "jararaca.sent"

    room: str


def answer_frame(answer: WebSocketMessageBase, ref: str | None) -> Frame:
    """The frame of an answer, with the ``ref`` of what it answers."""
    data = encode(answer).data
    return Frame(data if ref is None else b'%s,"ref":%s}' % (data[:-1], to_json(ref)))
