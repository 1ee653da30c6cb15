"""From a message to a publication: everything that can be wrong with a send, before anything is sent or staged."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import count

from jararaca_ws.backends.base import Publication
from jararaca_ws.delivery import all_but
from jararaca_ws.errors import ConfigurationError, MessageNotEncodable
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.rooms import check_rooms, instance_of
from jararaca_ws.typed_rooms import AnyRoom, names_for
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import encode
from jararaca_ws.wire.retained import MAX_RETAINED_OVERHEAD

__all__ = ["Preparation"]

_MAX_ID_BYTES = 255


class Preparation:
    """Checks, encodes, and gives ids.

    Attributes:
        instance_id: unique among all processes.
    """

    def __init__(self, backend: object, max_queue_bytes: int, *, keeps_histories: bool) -> None:
        self.instance_id = uuid.uuid4().hex
        self._ids = count()
        self._backend = type(backend).__name__
        self._max_queue_bytes = max_queue_bytes
        self._keeps_histories = keeps_histories

    def publication(
        self, rooms: Sequence[AnyRoom], message: WebSocketMessageBase, id: str | None, exclude: str | None = None
    ) -> Publication:
        """A message to rooms; ``id`` is the sender's own, if it has one; ``exclude`` who does not get it."""
        names = check_rooms(names_for(rooms, message))
        frame = self.encode(message)
        retention = message.DELIVERY.retention
        if retention is not None and not self._keeps_histories:
            raise ConfigurationError(
                f"{type(message).__name__} is recoverable, and a {self._backend} keeps no histories",
                "use RedisWebSocketConnectionBackend or MemoryWebSocketConnectionBackend, or another DELIVERY",
            )
        own_id = self._new_id() if id is None else _checked_id(id)
        payload = frame.payload
        if exclude is not None:
            instance_of(exclude)  # it is the id of a connection
            payload = all_but(exclude, payload)
        return Publication(names, payload, own_id, retention, id is not None)

    def for_user(self, room: str, message: WebSocketMessageBase) -> Publication:
        """A message to the room of ours in which all connections of a user are."""
        return Publication([room], self.unkept(message, "a user").payload, self._new_id())

    def unkept(self, message: WebSocketMessageBase, whom: str) -> Frame:
        """The frame of a message to whom no history belongs."""
        frame = self.encode(message)
        if message.DELIVERY.retention is not None:
            raise ConfigurationError(
                f"{type(message).__name__} is recoverable, so it cannot be sent to {whom}",
                f"send it to a room that {whom} joins: histories are kept by room",
            )
        return frame

    def command(self, room: str, payload: bytes) -> Publication:
        """What instances ask of each other, to a room of ours."""
        return Publication([room], payload, self._new_id())

    def _new_id(self) -> str:
        return f"{self.instance_id}-{next(self._ids):x}"

    def broadcast(self, message: bytes | WebSocketMessageBase) -> bytes:
        """The payload of a message to everybody."""
        if isinstance(message, bytes):
            message.decode()
            frame = Frame(message)
            if frame.size > self._max_queue_bytes:
                raise ValueError(f"{len(message)} bytes are more than an outbound queue takes (max_queue_bytes)")
            return frame.payload
        frame = self.encode(message)
        if message.DELIVERY.retention is not None:
            raise ConfigurationError(
                f"{type(message).__name__} is recoverable, so it cannot be broadcast",
                "send it to a room: histories are kept by room",
            )
        return frame.payload

    def encode(self, message: WebSocketMessageBase) -> Frame:
        """The frame of a message that a connection's outbound queue can take."""
        if not isinstance(message, WebSocketMessageBase):
            raise TypeError(f"a {type(message).__name__} cannot be sent: a WebSocketMessage can")
        frame = encode(message)
        overhead = 0 if message.DELIVERY.retention is None else MAX_RETAINED_OVERHEAD
        if frame.size + overhead > self._max_queue_bytes:
            raise MessageNotEncodable(
                type(message),
                f"its frame has {len(frame.data)} bytes, more than the outbound queue of a connection "
                f"({self._max_queue_bytes} bytes, max_queue_bytes)",
            )
        return frame


def _checked_id(id: str) -> str:
    if not id.isprintable() or not 0 < len(id.encode()) <= _MAX_ID_BYTES:
        raise ValueError(f"the id of a send is 1 to {_MAX_ID_BYTES} bytes of printable characters")
    return id
