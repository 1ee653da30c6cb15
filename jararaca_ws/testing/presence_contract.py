"""The contract of a `PresenceBackend`: one state for all instances, of which the dead have no part."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from jararaca_ws.backends.presence import PresenceBackend, PresenceChange, PresenceEntry, PresenceMember, PresenceStore
from jararaca_ws.errors import PresenceLost
from jararaca_ws.testing.recorder import AWKWARD_ROOMS, TIMEOUT_S, Check, MakeBackend, across_instances, started

__all__ = ["PRESENCE_CONTRACT"]

_LONG_MS = 60_000
_SHORT_MS = 150
_BEATING_MS = 600


def _change(
    kind: Literal["here", "left", "gone"], room: str, connection: str, user: str | None = None, **metadata: Any
) -> PresenceChange:
    return PresenceChange(kind, room, connection, user, metadata)


def _entries(members: Sequence[PresenceMember]) -> list[PresenceEntry]:
    return sorted(member.entry for member in members)


def _here(members: Sequence[PresenceMember]) -> list[str]:
    return sorted(member.entry.connection_id for member in members if member.left_ms is None)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not await condition():  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _stores(make: MakeBackend, *ttls_ms: int, grace_ms: int = _LONG_MS) -> AsyncIterator[list[PresenceStore]]:
    """Stores of as many instances: those of one backend share its state, as those of several must."""
    async with started(make) as [one]:
        yield [await _store(one.backend, f"instance-{n}", ttl_ms, grace_ms) for n, ttl_ms in enumerate(ttls_ms)]


async def _store(backend: object, instance_id: str, ttl_ms: int, grace_ms: int) -> PresenceStore:
    assert isinstance(backend, PresenceBackend)
    store = backend.presence_store(instance_id, ttl_ms=ttl_ms, grace_ms=grace_ms)
    await store.register()
    return store


async def _is_lost(asked: Awaitable[object]) -> bool:
    try:
        await asked
    except PresenceLost:
        return True
    return False


def _presence_check(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    """A check that asks for nothing where a backend keeps no presence."""

    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if isinstance(make(), PresenceBackend):
            await check(make)

    return guarded


@_presence_check
async def who_is_written_is_read_by_all(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        await one.write([_change("here", "a", "c1", "ana", colour="red"), _change("here", "b", "c1", "ana")])
        await two.write([_change("here", "a", "c2")])
        for store in (one, two):
            a, b, empty = await store.read(["a", "b", "empty"])
            assert _entries(a) == [("c1", "instance-0", "ana", {"colour": "red"}), ("c2", "instance-1", None, {})]
            assert _entries(b) == [("c1", "instance-0", "ana", {})]
            assert empty == []


@_presence_check
async def the_last_that_was_written_holds(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        await one.write([_change("here", "a", "c1", None, n=1)])
        await one.write([_change("here", "a", "c1", "ana", n=2)])
        [[member]] = await one.read(["a"])
        assert member.entry == PresenceEntry("c1", "instance-0", "ana", {"n": 2})
        assert member.left_ms is None


@_presence_check
async def who_was_written_later_is_newer(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        await one.write([_change("here", "a", "c1")])
        await asyncio.sleep(0.005)  # the clock is one of milliseconds
        await two.write([_change("here", "a", "c2")])
        [members] = await one.read(["a"])
        at_ms = {member.entry.connection_id: member.at_ms for member in members}
        assert at_ms["c1"] < at_ms["c2"]


@_presence_check
async def who_left_is_marked_for_the_grace_period(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, grace_ms=_SHORT_MS) as [one]:
        await one.write([_change("here", "a", "c1", "ana"), _change("here", "a", "c2")])
        await one.write([_change("left", "a", "c1", "ana", n=1)])
        [members] = await one.read(["a"])
        assert _here(members) == ["c2"]
        [left] = [member for member in members if member.left_ms is not None]
        assert left.entry == PresenceEntry("c1", "instance-0", "ana", {"n": 1})
        assert 0 <= (left.left_ms or 0) < _SHORT_MS

        async def only_the_other() -> bool:
            [members] = await one.read(["a"])
            return [member.entry.connection_id for member in members] == ["c2"]

        await _until(only_the_other)


@_presence_check
async def who_comes_back_is_there_again(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        for kind in ("here", "left", "here"):
            await one.write([_change(kind, "a", "c1")])
        assert _here((await one.read(["a"]))[0]) == ["c1"]


@_presence_check
async def who_is_gone_is_not_kept(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        await one.write([_change("here", "a", "c1"), _change("left", "a", "c2"), _change("gone", "a", "unknown")])
        await one.write([_change("gone", "a", "c1"), _change("gone", "a", "c2")])
        assert await one.read(["a"]) == [[]]


@_presence_check
async def everything_may_be_done_twice(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        for changes in ([_change("here", "a", "c1")], [_change("left", "a", "c1")], [_change("gone", "a", "c1")]):
            await one.write(changes)
            before = [entry.entry for entry in (await one.read(["a"]))[0]]
            await one.write(changes)
            assert [entry.entry for entry in (await one.read(["a"]))[0]] == before


@_presence_check
async def instances_never_write_over_each_other(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        await one.write([_change("here", "a", "same", "ana")])
        await two.write([_change("here", "a", "same", "bob")])
        await two.write([_change("gone", "a", "same")])
        assert _entries((await two.read(["a"]))[0]) == [("same", "instance-0", "ana", {})]


@_presence_check
async def a_dead_instance_has_no_part(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _SHORT_MS) as [one, dying]:
        await one.write([_change("here", "a", "c1")])
        await dying.write([_change("here", "a", "c2"), _change("left", "a", "c3")])

        async def only_mine() -> bool:
            [members] = await one.read(["a"])
            return [member.entry.connection_id for member in members] == ["c1"]

        await _until(only_mine)
        # It comes back to life, and is told that it must begin anew.
        assert await _is_lost(dying.beat([]))
        assert await _is_lost(dying.write([_change("here", "a", "c2")]))
        assert await _is_lost(dying.read(["a"]))
        await dying.register()
        await dying.write([_change("here", "a", "c4")])
        assert _here((await dying.read(["a"]))[0]) == ["c1", "c4"]


@_presence_check
async def registering_again_begins_anew(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, other]:
        await other.write([_change("here", "a", "old"), _change("here", "b", "old")])
        await other.register()
        await other.write([_change("here", "a", "new")])
        a, b = await one.read(["a", "b"])
        assert (_here(a), b) == (["new"], [])


@_presence_check
async def signs_of_life_keep_an_instance_alive(make: MakeBackend) -> None:
    async with _stores(make, _BEATING_MS) as [one]:
        await one.write([_change("here", "a", "c1")])
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.5 * _BEATING_MS / 1000
        while loop.time() < end:
            await one.beat(["a"])
            assert _here((await one.read(["a"]))[0]) == ["c1"]
            await asyncio.sleep(_BEATING_MS / 20_000)


@_presence_check
async def who_left_with_an_instance_that_ended_is_marked_still(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS, grace_ms=_SHORT_MS) as [one, ending]:
        await ending.write([_change("here", "a", "c1"), _change("here", "a", "stays")])
        await ending.write([_change("left", "a", "c1")])
        await ending.retire()

        async def nobody() -> bool:
            return await one.read(["a"]) == [[]]

        await _until(nobody)  # once the grace period is over, and long before the TTL


@_presence_check
async def names_are_literal(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS, _LONG_MS) as [one, two]:
        await one.write([_change("here", room, "c1", room, name=room) for room in AWKWARD_ROOMS])
        for room, members in zip(AWKWARD_ROOMS, await two.read(AWKWARD_ROOMS), strict=True):
            assert _entries(members) == [("c1", "instance-0", room, {"name": room})]


@_presence_check
async def many_are_written_and_read_at_once(make: MakeBackend) -> None:
    async with _stores(make, _LONG_MS) as [one]:
        rooms = [f"room-{n}" for n in range(300)]
        await one.write([_change("here", room, f"c{n}") for room in rooms for n in range(5)])
        await one.beat(rooms)
        assert [len(members) for members in await one.read(rooms)] == [5] * 300
        await one.write([_change("gone", room, f"c{n}") for room in rooms for n in range(5)])
        assert await one.read(rooms) == [[]] * 300
        await one.write([_change("here", "large", f"c{n}") for n in range(2000)])
        assert len((await one.read(["large"]))[0]) == 2000


@across_instances
@_presence_check
async def all_backends_share_one_state(make: MakeBackend) -> None:
    async with started(make, 2) as backends:
        one, two = [await _store(each.backend, f"instance-{n}", _LONG_MS, _LONG_MS) for n, each in enumerate(backends)]
        await one.write([_change("here", "a", "c1", "ana")])
        await two.write([_change("here", "a", "c2", "bob")])
        for store in (one, two):
            assert _here((await store.read(["a"]))[0]) == ["c1", "c2"]


PRESENCE_CONTRACT: list[Check] = [
    who_is_written_is_read_by_all,
    the_last_that_was_written_holds,
    who_was_written_later_is_newer,
    who_left_is_marked_for_the_grace_period,
    who_comes_back_is_there_again,
    who_is_gone_is_not_kept,
    everything_may_be_done_twice,
    instances_never_write_over_each_other,
    a_dead_instance_has_no_part,
    registering_again_begins_anew,
    signs_of_life_keep_an_instance_alive,
    who_left_with_an_instance_that_ended_is_marked_still,
    names_are_literal,
    many_are_written_and_read_at_once,
    all_backends_share_one_state,
]
"""Every check, in an order in which the first that fails says most."""
