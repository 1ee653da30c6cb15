"""The wire of what rooms keep: envelopes with a place in a history, and how a client comes back to one.

With `protocol` the only module that knows wire keys. ``docs/protocol.md`` is its prose, ``tests/vectors`` pins it.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from jararaca_ws.backends.base import Entry, Replay, StreamPosition
from jararaca_ws.delivery import split
from jararaca_ws.errors import InvalidMessage
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import decode

__all__ = [
    "MAX_RETAINED_OVERHEAD",
    "NOWHERE",
    "RECOVER_SUBPROTOCOL",
    "HistoryMessage",
    "Position",
    "Recovered",
    "RecoveryRequest",
    "RoomHistory",
    "decode_positions",
    "retained_frame",
]

RECOVER_SUBPROTOCOL = "jararaca.recover"
"""A client that offers this too sends its positions in its first frame, and gets what it has missed."""

NOWHERE = StreamPosition("", 0)
"""Before the first message of a history that nobody has seen yet."""

MAX_RETAINED_OVERHEAD = 1536
"""How many bytes longer than its message the frame of a kept message is at most."""

_MAX_ROOMS = 128
_MAX_EPOCH = 64


class Position(WebSocketMessageBase):
    """Control message: the client has everything that this room keeps up to here."""

    MESSAGE_ID: ClassVar[str] = "jararaca.position"

    room: str
    epoch: str
    offset: int


class Recovered(WebSocketMessageBase):
    """Control message: whether what the client has missed of a room follows, all of it.

    Attributes:
        recovered: if not, something is missing, and what follows begins after the position given here.
        epoch, offset: of the newest message that the room has kept.
    """

    MESSAGE_ID: ClassVar[str] = "jararaca.recovered"

    room: str
    recovered: bool
    epoch: str
    offset: int


def retained_frame(room: str, entry: Entry) -> Frame:
    """The frame of a kept message, made once for all members of the room.

    Raises:
        ValueError: it is no envelope.
    """
    data = split(entry.payload)[2]
    if not data.endswith(b"}"):
        raise ValueError("not an envelope")
    frame = Frame(
        b'%s,"id":%s,"room":%s,"epoch":%s,"offset":%d}'
        % (data[:-1], to_json(entry.id), to_json(room), to_json(entry.position.epoch), entry.position.offset)
    )
    frame.text  # noqa: B018  # UTF-8, or a ValueError here
    return frame


# --- a client that comes back -----------------------------------------------------------------------------------------


class _Position(BaseModel):
    model_config = ConfigDict(strict=True)

    epoch: str = Field(max_length=_MAX_EPOCH)
    offset: int = Field(ge=0, lt=2**63)


class _Positions(BaseModel):
    rooms: Annotated[dict[str, _Position], Field(max_length=_MAX_ROOMS)]


class _Head(BaseModel):
    MESSAGE_ID: Literal["jararaca.recover"]


class _Recover(BaseModel):
    message: _Positions


_head = TypeAdapter(_Head)
_recover = TypeAdapter(_Recover)


def decode_positions(raw: str) -> dict[str, StreamPosition] | None:
    """The positions that a client comes back with, by room; None where this is another message.

    Raises:
        InvalidMessage: it is ``jararaca.recover``, and malformed: more than 128 rooms, or an offset that is none.
    """
    try:
        _head.validate_json(raw)
    except ValidationError:
        return None  # the application's, whatever it is
    try:
        rooms = _recover.validate_json(raw).message.rooms
    except ValidationError as error:
        raise InvalidMessage(f"jararaca.recover: {error.errors()[0]['type']}") from None
    return {room: StreamPosition(position.epoch, position.offset) for room, position in rooms.items()}


class RecoveryRequest:
    """What a client that comes back says it has: its first frame.

    Attributes:
        has_come: whether that frame has, or another one in its place, or the time for it is over.
        positions: by room; those that have been answered are taken out. Empty before it has come.
        on_come: called once, synchronously, when it has.
    """

    __slots__ = ("has_come", "on_come", "positions")

    def __init__(self) -> None:
        self.has_come = False
        self.positions: dict[str, StreamPosition] = {}
        self.on_come: Callable[[], None] = _nobody_asks_yet

    def take(self, message: MutableMapping[str, Any]) -> bool:
        """Look at what the client sent first; whether it was its positions, and so is not the application's.

        Raises:
            InvalidMessage: it was, and it is malformed.
        """
        positions = decode_positions(message.get("text") or "")
        self.come(positions or {})
        return positions is not None

    def come(self, positions: dict[str, StreamPosition]) -> None:
        """These are its positions; only the first call counts."""
        if not self.has_come:
            self.has_come = True
            self.positions = positions
            self.on_come()


def _nobody_asks_yet() -> None:
    """Who takes the connection in looks at `RecoveryRequest.has_come`."""


# --- for applications -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryMessage:
    """One message of a room's history.

    Attributes:
        offset: its place.
        id: of its send.
        data: its envelope as it was sent, JSON in UTF-8.
    """

    offset: int
    id: str
    data: bytes

    @property
    def message(self) -> WebSocketMessageBase:
        """The typed message.

        Raises:
            InvalidMessage: this process has no such message class, or another form of it.
        """
        return decode(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomHistory:
    """What a room's history says.

    Attributes:
        position: of the newest message; offset 0 where there was none yet.
        recovered: whether the messages are all that came after the position that was asked for.
        messages: the oldest first. Empty unless ``recovered``.
    """

    position: StreamPosition
    recovered: bool
    messages: Sequence[HistoryMessage]

    @classmethod
    def of(cls, replay: Replay) -> RoomHistory:
        """What a backend has read."""
        messages = [
            HistoryMessage(offset=entry.position.offset, id=entry.id, data=split(entry.payload)[2])
            for entry in replay.entries
        ]
        return cls(position=replay.position, recovered=replay.recovered, messages=messages)
