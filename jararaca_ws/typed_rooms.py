"""Typed rooms: a class says how its rooms are named, who may join them, and which messages they carry."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, get_args, get_origin
from urllib.parse import unquote
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypeVar

from jararaca_ws.errors import BadRoom, ConfigurationError, DuplicateRoomPattern, NotCarried, PermissionDenied
from jararaca_ws.room_patterns import Names, Way, literally, ways_of

if TYPE_CHECKING:
    from jararaca_ws.messages import WebSocketMessageBase
    from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["AnyRoom", "Room", "RoomClasses", "authorize", "names_for", "refused", "room_named"]

# What a room that carries two types takes is taken by a room that carries one of them: contravariant.
_Carried_contra = TypeVar(
    "_Carried_contra", bound="WebSocketMessageBase", contravariant=True, default="WebSocketMessageBase"
)

_ESCAPED = re.compile(r"[^A-Za-z0-9\u0080-\U0010ffff]")
"""In a value these are written as %XX: so no value holds a separator, and none looks like another room."""
_VALUE = r"((?:[A-Za-z0-9\u0080-\U0010ffff]|%[0-7][0-9A-F])+)"
_UUID = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_TYPES = (str, int, UUID, date, Enum)


class Room(BaseModel, Generic[_Carried_contra]):
    """A room with a type::

        class OrderRoom(Room[OrderChanged | OrderShipped], pattern="order-{order_id}"):
            order_id: int

            async def authorize(self, connection: WebSocketConnection) -> bool:
                return await may_read(connection.user_id, self.order_id)

        await OrderShipped(...).send(OrderRoom(order_id=42))

    It stands wherever the name of a room does; ``str(room)`` is that name, here ``order-42``. Type checkers refuse to
    send it a message that it does not carry, and so does `NotCarried` at run time. ``Room`` alone carries any.

    Each field stands in the pattern once, and is a string, an integer, a UUID, a date, an enumeration or a literal. In
    the name, everything in a value but letters, digits and what is not ASCII is written as ``%XX``, a UUID excepted. So
    no value can make the name of another room of the class. Of two classes that can make one name, connections of one
    manager join only one (`DuplicateRoomPattern`).

    Raises:
        ConfigurationError: when the class is created, for a pattern that does not fit its fields, or whose fields are
            not kept apart by a character that is escaped in them.
        BadRoom: when the name is asked for, and it cannot be one: it is too long, or a value is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # None in a class that only others derive from.
    __pattern__: ClassVar[_Pattern | None] = None
    __carries__: ClassVar[tuple[type, ...]] = ()

    def __init_subclass__(cls, *, pattern: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # the fields are not there yet: see below

    @classmethod
    def __pydantic_init_subclass__(cls, pattern: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for judge in ("authorize", "authorize_send"):
            if not inspect.iscoroutinefunction(getattr(cls, judge)):
                raise ConfigurationError(f"{cls.__qualname__}.{judge} is not async", "write async def")
        generic = cls.__pydantic_generic_metadata__
        if generic["origin"] is not None and generic["args"]:
            cls.__carries__ = cls.__carries__ or tuple(_classes(generic["args"][0]))
        if pattern is not None:
            cls.__pattern__ = _Pattern(cls, pattern)
        elif cls.__pattern__ is not None:
            cls.__pattern__.check(cls)

    async def authorize(self, connection: WebSocketConnection) -> bool:
        """Whether the connection may be here, and so get what is sent. Anybody may, unless overridden.

        Asked at each join, a recovery's too, at `WebSocketConnection.watch_presence`, and of who is here already when
        its user shows another token, or the application says `reauthorize_user`. Where it raises nobody joins.
        """
        return True

    async def authorize_send(self, connection: WebSocketConnection, message: _Carried_contra) -> bool:
        """Whether a client that is here may send this message, by ``jararaca.send``. Anybody may, unless overridden.

        Asked each time; only for the types in ``client_sends`` of the endpoint.
        """
        return True

    def __str__(self) -> str:
        """The name of the room.

        Raises:
            BadRoom: a value is empty.
            ConfigurationError: the class has no pattern.
        """
        if self.__pattern__ is None:
            raise ConfigurationError(f"{type(self).__qualname__} has no pattern", 'class X(Room, pattern="x-{id}")')
        return self.__pattern__.fill(self.model_dump(mode="json"))


class _Pattern:
    """How the rooms of a class are named."""

    __slots__ = ("_expression", "_fields", "_parts", "_text", "_uuids")

    def __init__(self, cls: type[Room[Any]], text: str) -> None:
        self._text = text
        try:
            self._parts = [(part[0], part[1]) for part in Formatter().parse(text) if not _is_odd(part)]
        except ValueError as error:
            raise self._wrong(cls, str(error)) from None
        self._fields = [field for _, field in self._parts if field is not None]
        self.check(cls)
        separators = [literal for literal, field in self._parts[1:] if field is not None]
        if not all(_ESCAPED.search(separator) for separator in separators) or "%" in "".join(p[0] for p in self._parts):
            raise self._wrong(cls, "put a character between the fields that is no letter, no digit and no %")
        self._uuids = {name for name, field in cls.model_fields.items() if field.annotation is UUID}
        self._expression = re.compile(
            "".join(
                re.escape(literal) + ("" if field is None else _UUID if field in self._uuids else _VALUE)
                for literal, field in self._parts
            )
        )

    @property
    def text(self) -> str:
        """As it was written."""
        return self._text

    def check(self, cls: type[Room[Any]]) -> None:
        """Whether it fits the fields of a class.

        Raises:
            ConfigurationError: it does not.
        """
        if sorted(self._fields) != sorted(cls.model_fields):
            raise self._wrong(cls, f"each field stands in it once: {', '.join(cls.model_fields) or 'there is none'}")
        for name, field in cls.model_fields.items():
            if not _has_place(field.annotation):
                raise self._wrong(
                    cls, f"{name} is no string, integer, UUID, date, enumeration or literal, so it has no place in it"
                )

    def fill(self, values: Mapping[str, Any]) -> str:
        """The name of a room with these values."""
        return "".join(
            literal + ("" if field is None else self._value(field, values[field])) for literal, field in self._parts
        )

    def _value(self, field: str, value: Any) -> str:
        text = str(value)
        if not text:
            raise BadRoom(self._text, f"{field} is empty")
        if field in self._uuids:
            return text
        return _escaped(text)

    def values(self, name: str) -> dict[str, str] | None:
        """What `fill` was given; None where the name is not of this pattern."""
        found = self._expression.fullmatch(name)
        return None if found is None else dict(zip(self._fields, map(unquote, found.groups()), strict=True))

    def names(self, cls: type[Room[Any]]) -> Names:
        """All the names that it makes for rooms of the class."""
        ways: list[Sequence[Way]] = []
        for literal, field in self._parts:
            ways += [[literally(literal)]] if literal else []
            ways += [_ways_of_field(cls.model_fields[field].annotation)] if field is not None else []
        return Names(ways)

    def _wrong(self, cls: type, cure: str) -> ConfigurationError:
        return ConfigurationError(f"{cls.__module__}.{cls.__qualname__} has the pattern {self._text!r}", cure)


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", text)


def _is_odd(part: tuple[str, str | None, str | None, str | None]) -> bool:
    _, field, specification, conversion = part
    if specification or conversion or (field is not None and not field.isidentifier()):
        raise ValueError("the name of a field, and nothing else, stands in braces")
    return False


def _ways_of_field(annotation: Any) -> Sequence[Way]:
    annotation = getattr(annotation, "__supertype__", annotation)  # of a NewType
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        values = tuple(str(to_jsonable_python(member)) for member in annotation)
    else:
        return ways_of(annotation)
    return [literally(_escaped(value)) for value in values if value]


def _has_place(annotation: Any) -> bool:
    annotation = getattr(annotation, "__supertype__", annotation)  # of a NewType
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, _TYPES)


def _classes(carried: Any) -> Iterator[type]:
    """The message classes of a type; none where it says nothing about them."""
    if isinstance(carried, type) and carried is not Any:  # a class of 3.11, but not one of messages
        yield carried
    else:
        for argument in get_args(carried):
            yield from _classes(argument)


AnyRoom: TypeAlias = str | Room[Any]
"""What names a room."""


# --- what is done with them -------------------------------------------------------------------------------------------


def names_for(rooms: Iterable[AnyRoom], message: WebSocketMessageBase) -> list[str]:
    """The names of the rooms that a message is sent to; they are checked later.

    Raises:
        NotCarried: one of them does not carry it.
        BadRoom: a room, or a string, was given in place of several.
    """
    if isinstance(rooms, str | Room):
        raise BadRoom(str(rooms), "a list of rooms is meant here: put it in brackets")
    return [_name_for(room, message) if isinstance(room, Room) else room for room in rooms]


def _name_for(room: Room[Any], message: WebSocketMessageBase) -> str:
    if room.__carries__ and not isinstance(message, room.__carries__):
        raise NotCarried(type(room), type(message))
    return str(room)


async def authorize(
    rooms: Iterable[AnyRoom], connection: WebSocketConnection, member_of: Callable[[str], str] = str
) -> None:
    """Ask typed rooms, one after the other, whether the connection may join. Strings say nothing against it.

    Whoever joins does it without waiting in between. Where the connection is told meanwhile that what it may has
    changed, all are asked again. ``member_of`` is what it joins for a room of this name, where that is another one.

    Raises:
        PermissionDenied: one of them refuses.
    """
    asked = [room for room in rooms if isinstance(room, Room) and type(room).authorize is not Room.authorize]
    changes = -1
    while asked and changes != connection.permission_changes:
        changes = connection.permission_changes
        for room in asked:
            if not await room.authorize(connection):
                raise PermissionDenied(str(room))
    if asked:
        granted = {member_of(str(room)): (str(room), type(room)) for room in asked}
        connection.granted = {**(connection.granted or {}), **granted}


async def refused(name: str, cls: type[Room[Any]], connection: WebSocketConnection) -> bool:
    """Whether a room that has let the connection in would not do it now."""
    room = room_named(name, (cls,))
    try:
        return room is None or not await room.authorize(connection)
    except PermissionDenied:
        return True


def room_named(name: str, classes: Iterable[type[Room[Any]]]) -> Room[Any] | None:
    """The room with this name, of the first of the classes that has one; None where none has."""
    for cls in classes:
        values = None if cls.__pattern__ is None else cls.__pattern__.values(name)
        if values is None:
            continue
        try:
            room = cls.model_validate_strings(values)
        except ValidationError:
            continue
        if str(room) == name:  # else it is another way to write that name, and only one is the room's
            return room
    return None


class RoomClasses:
    """The classes of rooms that connections of one manager join: no two of them may make one name.

    What another application in the same process has is none of its business. A class that was defined again under its
    own module and name (a reloaded module) may share the names of the first, and one that derives from another as well.
    """

    __slots__ = ("_names",)

    def __init__(self) -> None:
        # Weak, so that a class made in a function goes when nobody uses it any more.
        self._names: weakref.WeakKeyDictionary[type[Room[Any]], Names] = weakref.WeakKeyDictionary()

    def add(self, *classes: type[Room[Any]]) -> None:
        """Called before a room of the class is joined, each time.

        Raises:
            DuplicateRoomPattern: it can make the name of a room of another class; it is not added.
        """
        for cls in classes:
            if cls not in self._names and cls.__pattern__ is not None:
                self._names[cls] = self._of_no_other(cls, cls.__pattern__.names(cls))

    def _of_no_other(self, cls: type[Room[Any]], names: Names) -> Names:
        for other, others in self._names.items():
            if not _may_share_names(cls, other) and names.meet(others):
                raise DuplicateRoomPattern(other, cls)
        return names


def _may_share_names(one: type[Room[Any]], other: type[Room[Any]]) -> bool:
    if (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__):
        return True
    return one.__pattern__ is other.__pattern__ or issubclass(one, other) or issubclass(other, one)
