"""What instances say to each other: publications.

A publication is one line of header and then the frame's bytes. The header is `1` and JSON: to one room its unique id;
to several, and where the rooms keep it, an array of the id, all the rooms and, where this one keeps it, the epoch and
the offset. It is published once for each room, and an instance delivers the first copy that it reads to the union of
them all and drops the others, and second tries, by the id. `1` alone is a publication to one room without an id.

``docs/protocol.md`` is the prose of it, ``tests/vectors`` pins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from jararaca_ws.backends.base import StreamPosition

__all__ = ["Received", "decode_publication", "encode_publication", "kept_header"]

_VERSION = b"1"
_id = TypeAdapter(str)
_several = TypeAdapter(tuple[str, list[str]])
_kept = TypeAdapter(
    tuple[str, list[str], Annotated[str, Field(min_length=1)], Annotated[int, Field(strict=True, ge=1, lt=2**53)]]
)


class Received(NamedTuple):
    """A publication as it came through a room.

    Attributes:
        id: None where it has none, because a third party made it.
        rooms: all that it was for.
        position: its place in the history of the room that it came through; None where that keeps none of it.
        payload: the frame's bytes.
    """

    id: str | None
    rooms: list[str]
    position: StreamPosition | None
    payload: bytes


def encode_publication(publication_id: str, rooms: Sequence[str], payload: bytes) -> bytes:
    """A publication that its rooms do not keep, as one instance publishes it to the others."""
    header = to_json(publication_id if len(rooms) == 1 else (publication_id, rooms))
    return b"%b%b\n%b" % (_VERSION, header, payload)


def kept_header(publication_id: str, rooms: Sequence[str]) -> bytes:
    """The header of a publication that its rooms keep, up to where the server that counts offsets goes on.

    That is, with ``,"<epoch>",<offset>]`` and a newline.
    """
    return _VERSION + to_json((publication_id, rooms))[:-1]


def decode_publication(room: str, payload: bytes) -> Received:
    """What `encode_publication` made, as it came through ``room``.

    Raises:
        ValueError: it is not a publication, or one of another version.
    """
    header, newline, data = payload.partition(b"\n")
    if not newline or header[:1] != _VERSION:
        raise ValueError("not a publication of version 1")
    if len(header) == 1:
        return Received(None, [room], None, data)
    if header[1:2] == b'"':
        return Received(_id.validate_json(header[1:]), [room], None, data)
    if header[-2:] == b"]]":  # it ends with the rooms
        publication_id, rooms = _several.validate_json(header[1:])
        return Received(publication_id, rooms, None, data)
    publication_id, rooms, epoch, offset = _kept.validate_json(header[1:])
    return Received(publication_id, rooms, StreamPosition(epoch, offset), data)
