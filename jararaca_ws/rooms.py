"""Room names, and the registry of who is in which room on this instance."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Generic, TypeVar

from jararaca_ws.errors import BadConnectionId, BadName, BadRoom
from jararaca_ws.typed_rooms import AnyRoom, Room

__all__ = [
    "ALL_INSTANCES",
    "MAX_ROOM_BYTES",
    "RoomRegistry",
    "check_room",
    "check_rooms",
    "check_text",
    "connection_id",
    "instance_of",
    "instance_room",
    "is_instance",
    "is_internal",
    "is_user",
    "presence_room",
    "user_room",
    "watched_room",
]

MAX_ROOM_BYTES = 255
"""Centrifugo's limit for a channel name."""

_T = TypeVar("_T")

# Control, format (zero-width and bidirectional controls), surrogate, private use, unassigned, line and paragraph ends.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def check_room(room: AnyRoom) -> str:
    """The name of a room, when it is one.

    Every other character is literal: a comma, ``*``, ``{}`` or a space never changes where a message goes.

    Raises:
        BadRoom: not 1 to 255 bytes of UTF-8 in Unicode normal form C without control or format characters.
    """
    if isinstance(room, Room):
        room = str(room)
    check_text(room, BadRoom)
    if not room.isascii() and not unicodedata.is_normalized("NFC", room):
        raise BadRoom(room, "it is not in Unicode normal form C: pass it through unicodedata.normalize('NFC', room)")
    return room


def check_text(name: str, bad: type[BadName]) -> None:
    """Whether a name is 1 to 255 bytes of UTF-8 without control or format characters.

    Raises:
        BadName: of the kind given, where it is not.
    """
    if not isinstance(name, str):
        raise bad(name, f"{bad.kind} is a string")
    if name.isascii() and name.isprintable() and 0 < len(name) <= MAX_ROOM_BYTES:
        return
    if not name:
        raise bad(name, "it is empty")
    if len(name) > MAX_ROOM_BYTES:
        raise bad(name, f"it is longer than {MAX_ROOM_BYTES} bytes of UTF-8")
    if any(unicodedata.category(character) in _FORBIDDEN for character in name):
        raise bad(name, "it has a control, format or unassigned character")
    if len(name.encode()) > MAX_ROOM_BYTES:
        raise bad(name, f"it is longer than {MAX_ROOM_BYTES} bytes of UTF-8")


def check_rooms(rooms: Iterable[AnyRoom]) -> list[str]:
    """The names of the rooms, each once, in the order given.

    Raises:
        BadRoom: one of them is not a room, or there is none, or a single one was passed instead of a list.
    """
    if isinstance(rooms, str | Room):
        raise BadRoom(str(rooms), "a list of rooms is meant here: put it in brackets")
    checked = list(dict.fromkeys(map(check_room, rooms)))
    if not checked:
        raise BadRoom("", "no room was given")
    return checked


# Rooms of our own: they begin with a character that no application's room has, and are never shown to it.
_INTERNAL = "\x01"
_USER = f"{_INTERNAL}user:"
_PRESENCE = f"{_INTERNAL}presence:"
_INSTANCE = f"{_INTERNAL}instance:"

ALL_INSTANCES = f"{_INTERNAL}instances"
"""What is sent to every instance; no connection is in it."""


def is_internal(room: str) -> bool:
    """Whether it is a room of our own."""
    return room.startswith(_INTERNAL)


def is_user(room: str) -> bool:
    """Whether it is the room of a user."""
    return room.startswith(_USER)


def user_room(user_id: str) -> str:
    """Where all connections of a user are, on every instance."""
    return _USER + user_id


def presence_room(room: str) -> str:
    """Where those are who watch the presence of a room, on every instance."""
    return _PRESENCE + room


def watched_room(room: str) -> str | None:
    """The room whose presence is watched in this one; None where it is not of this kind."""
    return room.removeprefix(_PRESENCE) if room.startswith(_PRESENCE) else None


def instance_room(instance_id: str) -> str:
    """What is sent to one instance; no connection is in it."""
    return _INSTANCE + instance_id


def is_instance(room: str) -> bool:
    """Whether it is the room of an instance."""
    return room.startswith(_INSTANCE)


_CONNECTION_ID = re.compile(r"([0-9a-f]{32})\.[0-9a-f]{16}")


def connection_id(instance_id: str, own: str) -> str:
    """The id of a connection on an instance; ``own`` is hexadecimal, and unique there."""
    return f"{instance_id}.{own[:16]}"


def instance_of(connection_id: object) -> str:
    """On which instance a connection is, or was.

    Raises:
        BadConnectionId: it is not the id of a connection.
    """
    match = _CONNECTION_ID.fullmatch(connection_id) if isinstance(connection_id, str) else None
    if match is None:
        raise BadConnectionId(connection_id, "it has another form")
    return match[1]


class RoomRegistry(Generic[_T]):
    """Two maps, room to members and member to rooms, that always say the same. Synchronous: no await, no race.

    An empty room does not exist. Join and leave cost O(1).
    """

    __slots__ = ("_members", "_rooms", "_snapshot")

    def __init__(self) -> None:
        self._members: dict[str, set[_T]] = {}
        self._rooms: dict[_T, set[str]] = {}
        # None once it may be wrong.
        self._snapshot: tuple[str, tuple[_T, ...]] | None = None

    def join(self, room: str, member: _T) -> bool:
        """Add a member; True when it is the first of the room here."""
        members = self._members.get(room)
        first = members is None
        self._snapshot = None
        if members is None:
            members = self._members[room] = set()
        members.add(member)
        self._rooms.setdefault(member, set()).add(room)
        return first

    def leave(self, room: str, member: _T) -> bool:
        """Remove a member; True when it was the last of the room here. Not being in the room is no error."""
        rooms = self._rooms.get(member)
        if rooms is None or room not in rooms:
            return False
        self._snapshot = None
        rooms.discard(room)
        if not rooms:
            del self._rooms[member]
        members = self._members[room]
        members.discard(member)
        if members:
            return False
        del self._members[room]
        return True

    def leave_all(self, member: _T) -> list[str]:
        """Remove a member from all its rooms; returns the rooms that are empty now."""
        return [room for room in tuple(self._rooms.get(member, ())) if self.leave(room, member)]

    def members(self, room: str) -> Collection[_T]:
        """The members of a room: a live view, not to be kept across an await."""
        return self._members.get(room, ())

    def rooms_of(self, member: _T) -> Collection[str]:
        """The rooms of a member: a live view."""
        return self._rooms.get(member, ())

    def snapshot(self, rooms: Sequence[str]) -> tuple[_T, ...]:
        """Who is in any of the rooms now, each once.

        The last one is kept until somebody joins or leaves: what is sent to one room again and again copies nothing.
        """
        if len(rooms) != 1:
            return tuple(dict.fromkeys(chain.from_iterable(map(self.members, rooms))))
        room = rooms[0]
        if self._snapshot is None or self._snapshot[0] != room:
            self._snapshot = room, tuple(self.members(room))
        return self._snapshot[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        """How many rooms there are."""
        return len(self._members)
