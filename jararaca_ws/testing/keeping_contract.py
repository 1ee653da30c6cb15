"""The contract of a `KeepingBackend`: values for a while, which all instances see, and one of them takes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

from jararaca_ws.backends.base import KeepingBackend
from jararaca_ws.testing.recorder import AWKWARD_ROOMS, TIMEOUT_S, Check, MakeBackend, started

__all__ = ["KEEPING_CONTRACT"]

_LONG_MS = 60_000


def _keeping_check(check: Callable[[list[KeepingBackend]], Awaitable[None]]) -> Check:
    """A check that asks for nothing where a backend keeps no values."""

    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if not isinstance(make(), KeepingBackend):
            return
        async with started(make, 2 if distributed else 1) as instances:
            backends = [one.backend for one in instances]
            await check([backend for backend in backends if isinstance(backend, KeepingBackend)])

    return guarded


@_keeping_check
async def keeps_what_it_was_given_for_all_instances(backends: list[KeepingBackend]) -> None:
    first, last = backends[0], backends[-1]
    for n, key in enumerate(AWKWARD_ROOMS):
        await first.keep(key, b"\x00\xff%d" % n, _LONG_MS)
    assert await last.kept(AWKWARD_ROOMS) == [b"\x00\xff%d" % n for n in range(len(AWKWARD_ROOMS))]
    assert await last.kept(["nothing", AWKWARD_ROOMS[0], "nothing"]) == [None, b"\x00\xff0", None]
    assert await last.kept([]) == []


@_keeping_check
async def keeps_the_last_value(backends: list[KeepingBackend]) -> None:
    first, last = backends[0], backends[-1]
    await first.keep("key", b"old", 1)
    await last.keep("key", b"new", _LONG_MS)
    await asyncio.sleep(0.05)  # the old one's time is over
    assert await first.kept(["key"]) == [b"new"]


@_keeping_check
async def keeps_for_the_longest_time_that_was_asked(backends: list[KeepingBackend]) -> None:
    first, last = backends[0], backends[-1]
    await first.keep("key", b"old", _LONG_MS)
    await last.keep("key", b"new", 1)
    await asyncio.sleep(0.05)  # the new one's own time is over
    assert await first.kept(["key"]) == [b"new"]


@_keeping_check
async def forgets_after_a_while(backends: list[KeepingBackend]) -> None:
    await backends[0].keep("key", b"value", 20)
    async with asyncio.timeout(TIMEOUT_S):
        while await backends[-1].kept(["key"]) != [None]:  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.005)
    assert await backends[-1].take("key") is None


@_keeping_check
async def gives_a_value_to_one_of_many_that_take_it(backends: list[KeepingBackend]) -> None:
    for turn in range(10):
        key = f"ticket-{turn}"
        await backends[0].keep(key, b"value", _LONG_MS)
        taken = await asyncio.gather(*(backends[n % len(backends)].take(key) for n in range(20)))
        assert sorted(taken, key=bool) == [None] * 19 + [b"value"]
        assert await backends[0].kept([key]) == [None]


KEEPING_CONTRACT: list[Check] = [
    keeps_what_it_was_given_for_all_instances,
    keeps_the_last_value,
    keeps_for_the_longest_time_that_was_asked,
    forgets_after_a_while,
    gives_a_value_to_one_of_many_that_take_it,
]
