"""Who is in which room, in Redis: a hash for each room, and a key for each instance that is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from jararaca_ws.backends.presence import PresenceChange, PresenceEntry, PresenceMember
from jararaca_ws.backends.redis_keys import Keys
from jararaca_ws.backends.redis_scripts import ALIVE, Call, Command
from jararaca_ws.errors import PresenceLost

__all__ = ["RedisPresence"]


Execute = Callable[[Sequence[Command]], Awaitable[list[Any]]]

_BREATH = 500
"""After so many fields it is the turn of others: a large room holds nobody up."""


class _Field(NamedTuple):
    """One field of a room's hash."""

    name: bytes
    life: str
    connection_id: str
    user_id: str | None
    metadata: dict[str, Any]
    at_ms: int
    has_left: bool


_value: TypeAdapter[tuple[str | None, dict[str, Any], int, bool]] = TypeAdapter(
    tuple[str | None, dict[str, Any], int, bool]
)


class RedisPresence:
    """One instance's `PresenceStore`.

    Each time that it registers, an instance gets a new life: a name, and a key of that name with a TTL. A field of a
    room's hash is ``<life>/<connection id>``, so nobody ever writes a field but the instance that it belongs to, and
    nobody takes one away but that instance, or anybody once its life is over. So nothing has to be atomic, and every
    command has one key: a cluster can keep each of them where it likes. Time is that of Redis.

    Args:
        execute: asks Redis, in order for each key; twice is no harm.
        keys: where it all is.
    """

    def __init__(self, execute: Execute, keys: Keys, instance_id: str, *, ttl_ms: int, grace_ms: int) -> None:
        self._execute = execute
        self._keys = keys
        self._instance_id = instance_id
        self._ttl_ms = ttl_ms
        self._grace_ms = grace_ms
        # Of a room that nobody is in any more the marks must last; and a room is never gone before its instances.
        self._room_ttl_ms = ttl_ms + grace_ms
        self._lives = count(1)
        self._life = f"{instance_id}.0"

    async def register(self) -> None:
        before, self._life = self._life, f"{self._instance_id}.{next(self._lives)}"
        await self._execute(
            [
                ("DEL", self._keys.instance(before)),
                ("SET", self._keys.instance(self._life), "1", "PX", self._ttl_ms),
            ]
        )

    async def beat(self, rooms: Collection[str]) -> None:
        prolonged = await self._execute(
            [
                ("PEXPIRE", self._keys.instance(self._life), self._ttl_ms),
                *(("PEXPIRE", self._keys.presence(room), self._room_ttl_ms) for room in rooms),
            ]
        )
        if not all(prolonged):
            raise PresenceLost("Redis has forgotten this instance, or who is in a room of it")

    async def write(self, changes: Sequence[PresenceChange]) -> None:
        now_ms = (await self._ask([]))[0]
        commands = [self._command(change, now_ms) for change in changes]
        rooms = dict.fromkeys(change.room for change in changes)
        await self._ask([*commands, *(("PEXPIRE", self._keys.presence(room), self._room_ttl_ms) for room in rooms)])

    async def read(self, rooms: Sequence[str]) -> list[list[PresenceMember]]:
        now_ms, *hashes = await self._ask([("HGETALL", self._keys.presence(room)) for room in rooms])
        fields = [await _fields(flat) for flat in hashes]
        dead = await self._dead({field.life for found in fields for field in found})
        await self._clear(rooms, fields, dead)
        return [self._members(found, dead, now_ms) for found in fields]

    async def retire(self) -> None:
        await self._execute([("PEXPIRE", self._keys.instance(self._life), max(1, self._grace_ms))])

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """The time in milliseconds, and the replies.

        Raises:
            PresenceLost: our life is over; the commands were done all the same.
        """
        (alive, seconds, microseconds), *replies = await self._execute(
            [Call(ALIVE, (self._keys.instance(self._life),), ()), *commands]
        )
        if not alive:
            raise PresenceLost("Redis does not know this instance any more")
        return [int(seconds) * 1000 + int(microseconds) // 1000, *replies]

    def _command(self, change: PresenceChange, now_ms: int) -> Command:
        kind, room, connection_id, user_id, metadata = change
        field = f"{self._life}/{connection_id}"
        if kind == "gone":
            return "HDEL", self._keys.presence(room), field
        return "HSET", self._keys.presence(room), field, to_json((user_id, metadata, now_ms, kind == "left"))

    async def _dead(self, lives: set[str]) -> set[str]:
        others = [life for life in lives if life != self._life]
        if not others:
            return set()
        alive = await self._execute([("EXISTS", self._keys.instance(life)) for life in others])
        return {life for life, exists in zip(others, alive, strict=True) if not exists}

    async def _clear(self, rooms: Sequence[str], fields: list[list[_Field]], dead: set[str]) -> None:
        """Take away what dead instances have left."""
        commands: list[Command] = []
        for room, found in zip(rooms, fields, strict=True):
            names = [field.name for field in found if field.life in dead]
            if names:
                commands.append(("HDEL", self._keys.presence(room), *names))
        if commands:
            await self._execute(commands)

    def _members(self, fields: list[_Field], dead: set[str], now_ms: int) -> list[PresenceMember]:
        members = [_member(field, now_ms) for field in fields if field.life not in dead]
        return [member for member in members if member.left_ms is None or member.left_ms < self._grace_ms]


async def _fields(flat: Sequence[bytes]) -> list[_Field]:
    """The fields of a hash as Redis replies it. What is not ours is skipped."""
    found: list[_Field] = []
    for number, (name, value) in enumerate(zip(flat[::2], flat[1::2], strict=True), 1):
        if number % _BREATH == 0:
            await asyncio.sleep(0)
        life, slash, connection_id = name.decode(errors="replace").partition("/")
        try:
            fields = _value.validate_json(value)
        except ValidationError:
            continue
        if slash:
            found.append(_Field(name, life, connection_id, *fields))
    return found


def _member(field: _Field, now_ms: int) -> PresenceMember:
    instance_id = field.life.rpartition(".")[0]
    entry = PresenceEntry(field.connection_id, instance_id, field.user_id, field.metadata)
    return PresenceMember(entry, field.at_ms, max(0, now_ms - field.at_ms) if field.has_left else None)
