"""The contract of a `HistoryBackend`: offsets without holes, and all or nothing of what was missed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol

from jararaca_ws.backends.base import BatchingBackend, HistoryBackend, Publication, Replay, Retention, StreamPosition
from jararaca_ws.testing.recorder import (
    AWKWARD_ROOMS,
    TIMEOUT_S,
    Check,
    MakeBackend,
    Recorder,
    across_instances,
    started,
)

__all__ = ["HISTORY_CONTRACT"]

_KEEP = Retention(size=100, ttl_ms=60_000)
_ids = count()


class _KeepingBackend(HistoryBackend, BatchingBackend, Protocol): ...


def _keeping(recorder: Recorder) -> _KeepingBackend | None:
    backend = recorder.backend
    return backend if isinstance(backend, HistoryBackend) and isinstance(backend, BatchingBackend) else None


def _publication(
    rooms: list[str], payload: bytes, *, keep: Retention | None = _KEEP, id: str | None = None, is_keyed: bool = False
) -> Publication:
    return Publication(rooms, payload, f"contract-{next(_ids)}" if id is None else id, keep, is_keyed)


def _said(replay: Replay) -> list[tuple[int, bytes]]:
    return [(entry.position.offset, entry.payload) for entry in replay.entries]


def _history_check(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    """A check that asks for nothing where a backend keeps no history."""

    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if _keeping(Recorder(make())) is not None:
            await check(make)

    return guarded


@_history_check
async def offsets_have_no_holes_and_begin_at_1(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await one.subscribe("a")
        for n in range(20):
            await backend.send_many([_publication(["a"], b"%d" % n)])
        await one.until(lambda: len(one.entries) >= 20)
        assert one.kept("a") == [(n + 1, b"%d" % n) for n in range(20)]
        assert len({entry.position.epoch for _, entry, _ in one.entries}) == 1
        assert one.sent == [], "what has a place is handed over as an entry"


@_history_check
async def what_is_live_and_what_is_kept_are_the_same(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        payloads = [b"", b"\n", b'{"a":"\\u0000"}', "größe 日本 🐦".encode(), b"x" * 200_000]
        await one.subscribe("a")
        await backend.send_many([_publication(["a"], payload) for payload in payloads])
        await one.until(lambda: len(one.entries) >= len(payloads))
        replay = await backend.history("a", None, 100)
        assert replay.entries == [entry for _, entry, _ in one.entries]
        assert [entry.payload for entry in replay.entries] == payloads
        assert replay.position == replay.entries[-1].position
        assert replay.recovered


@_history_check
async def what_is_not_kept_takes_no_place(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await one.subscribe("a")
        await backend.send_many(
            [
                _publication(["a"], b"1"),
                _publication(["a"], b"-", keep=None),
                _publication(["a"], b"-", keep=None, is_keyed=True),
                _publication(["a"], b"2"),
            ]
        )
        await one.until(lambda: len(one.entries) >= 2 and len(one.sent) >= 2)
        assert one.kept("a") == [(1, b"1"), (2, b"2")]
        assert one.sent == [(("a",), b"-")] * 2
        assert _said(await backend.history("a", None, 100)) == [(1, b"1"), (2, b"2")]


@_history_check
async def a_history_is_read_since_a_place(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await backend.send_many([_publication(["a"], b"%d" % n) for n in range(1, 11)])
        [top] = await backend.positions(["a"])
        assert top is not None
        assert top.offset == 10
        for since in (0, 1, 7, 9, 10):
            replay = await backend.history("a", StreamPosition(top.epoch, since), 10)
            assert replay.recovered
            assert replay.position == top
            assert _said(replay) == [(n, b"%d" % n) for n in range(since + 1, 11)]
        newest = await backend.history("a", None, 3)
        assert _said(newest) == [(8, b"8"), (9, b"9"), (10, b"10")]
        assert newest.recovered


@_history_check
async def a_place_that_is_none_is_not_recovered(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await backend.send_many([_publication(["a"], b"1"), _publication(["b"], b"1")])
        [a, b] = await backend.positions(["a", "b"])
        assert a is not None
        assert b is not None
        for since in (
            StreamPosition(a.epoch, 2),
            StreamPosition(a.epoch, -1),
            StreamPosition(a.epoch, 2**64),
            StreamPosition(a.epoch, -(2**64)),
            StreamPosition("", 0),
            StreamPosition("unknown", 0),
            StreamPosition("unknown", 1),
            StreamPosition(a.epoch + " ", 1),
            StreamPosition("%w+ .*\r\n\0", 1),
        ):
            assert await backend.history("a", since, 100) == Replay(a, [], False)


@_history_check
async def too_much_that_was_missed_is_not_recovered_in_part(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await backend.send_many([_publication(["a"], b"%d" % n) for n in range(1, 11)])
        [top] = await backend.positions(["a"])
        assert top is not None
        assert (await backend.history("a", StreamPosition(top.epoch, 5), 5)).recovered
        assert await backend.history("a", StreamPosition(top.epoch, 4), 5) == Replay(top, [], False)


@_history_check
async def what_was_trimmed_is_not_recovered_in_part(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        keep = Retention(size=3, ttl_ms=60_000)
        await backend.send_many([_publication(["a"], b"%d" % n, keep=keep) for n in range(1, 11)])
        [top] = await backend.positions(["a"])
        assert top is not None
        assert top.offset == 10
        assert _said(await backend.history("a", StreamPosition(top.epoch, 7), 100)) == [
            (8, b"8"),
            (9, b"9"),
            (10, b"10"),
        ]
        assert await backend.history("a", StreamPosition(top.epoch, 6), 100) == Replay(top, [], False)
        assert (await backend.history("a", top, 100)) == Replay(top, [], True)


@_history_check
async def a_room_keeps_what_the_most_generous_message_type_asks_for(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        sizes = [5, 2, 2, 2, 2, 2]
        await backend.send_many(
            [_publication(["a"], b"%d" % n, keep=Retention(size, 60_000)) for n, size in enumerate(sizes, start=1)]
        )
        assert _said(await backend.history("a", None, 100)) == [(n, b"%d" % n) for n in range(2, 7)]


@_history_check
async def entries_expire_and_the_position_stays(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await backend.send_many([_publication(["a"], b"1", keep=Retention(size=10, ttl_ms=50))])
        [top] = await backend.positions(["a"])
        assert top is not None
        async with asyncio.timeout(TIMEOUT_S):
            while (await backend.history("a", None, 100)).entries:  # noqa: ASYNC110  # time passes, nothing else
                await asyncio.sleep(0.01)
        assert await backend.positions(["a"]) == [top]
        assert await backend.history("a", top, 100) == Replay(top, [], True)
        assert await backend.history("a", StreamPosition(top.epoch, 0), 100) == Replay(top, [], False)
        await backend.send_many([_publication(["a"], b"2")])
        replay = await backend.history("a", top, 100)
        assert (_said(replay), replay.recovered) == ([(2, b"2")], True)
        assert replay.position.epoch == top.epoch


@_history_check
async def a_room_without_a_history_has_no_position(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await backend.send_many([_publication(["b"], b"1"), _publication(["c"], b"1", keep=None)])
        [a, b, c] = await backend.positions(["a", "b", "c"])
        assert (a, c) == (None, None)
        assert b is not None
        assert await backend.positions([]) == []
        for room in ("a", "c"):
            replay = await backend.history(room, None, 100)
            assert (replay.position.offset, replay.entries, replay.recovered) == (0, [], True)
            assert not (await backend.history(room, StreamPosition(b.epoch, 0), 100)).recovered


@_history_check
async def each_of_several_rooms_keeps_it_at_a_place_of_its_own(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await one.subscribe("a", "b")
        await backend.send_many([_publication(["a"], b"1"), _publication(["a", "b", "c"], b"2", id="both")])
        await one.until(lambda: len(one.entries) >= 3)
        assert one.kept("a") == [(1, b"1"), (2, b"2")]
        assert one.kept("b") == [(1, b"2")]
        assert {rooms for _, entry, rooms in one.entries if entry.id == "both"} == {("a", "b", "c")}
        assert _said(await backend.history("c", None, 100)) == [(1, b"2")]


@_history_check
async def an_id_that_comes_again_is_kept_and_handed_over_once(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await one.subscribe("a", "b")
        for is_keyed in (False, True):
            again = _publication(["a"], b"again", id=f"again-{is_keyed}", is_keyed=is_keyed)
            await backend.send_many([again, again])
            await backend.send_many([again])
            await backend.send_many([again._replace(rooms=["a", "b"])])  # the first try broke off between the rooms
        loose = _publication(["a"], b"loose", keep=None, id="loose", is_keyed=True)
        await backend.send_many([loose, loose])
        await backend.send_many([loose, _publication(["a"], b"end")])
        await one.until(lambda: len(one.kept("a")) >= 3)
        await one.settled()
        assert one.kept("a") == [(1, b"again"), (2, b"again"), (3, b"end")]
        assert one.kept("b") == [(1, b"again"), (2, b"again")]
        assert one.messages == [b"loose"]


@_history_check
async def rooms_of_histories_are_literal(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        await one.subscribe(*AWKWARD_ROOMS)
        await backend.send_many([_publication([room], room.encode(), id="same for all") for room in AWKWARD_ROOMS])
        await one.until(lambda: len(one.entries) >= len(AWKWARD_ROOMS))
        for room in AWKWARD_ROOMS:
            assert one.kept(room) == [(1, room.encode())]
            assert _said(await backend.history(room, None, 100)) == [(1, room.encode())]
        assert [position and position.offset for position in await backend.positions(AWKWARD_ROOMS)] == [1] * len(
            AWKWARD_ROOMS
        )


@_history_check
async def histories_read_side_by_side_do_not_mix(make: MakeBackend) -> None:
    async with started(make) as [one]:
        backend = _of(one)
        rooms = [f"room-{n}" for n in range(50)]
        await backend.send_many([_publication([room], room.encode()) for room in rooms])
        replays = await asyncio.gather(*(backend.history(room, None, 100) for room in rooms))
        assert [_said(replay) for replay in replays] == [[(1, room.encode())] for room in rooms]


@across_instances
async def an_id_that_comes_again_does_not_reach_who_came_since(make: MakeBackend) -> None:
    async with started(make, 2) as [one, two]:
        if _keeping(one) is None:
            return
        again = [
            _publication(["a"], b"kept", id="again-kept", is_keyed=True),
            _publication(["a"], b"loose", keep=None, id="again-loose", is_keyed=True),
        ]
        await _of(one).send_many(again)
        await two.subscribe("a")
        await _of(one).send_many([*again, _publication(["a"], b"end")])
        await two.until(lambda: bool(two.entries))
        assert two.kept("a") == [(2, b"end")]
        assert two.sent == []


@across_instances
async def concurrent_appends_of_two_instances_are_counted_as_one(make: MakeBackend) -> None:
    async with started(make, 3) as [one, two, reader]:
        if _keeping(reader) is None:
            return
        await reader.subscribe("a")
        keep = Retention(size=1000, ttl_ms=60_000)
        await asyncio.gather(
            *(
                _of(sender).send_many([_publication(["a"], b"%s %d" % (name, n), keep=keep)])
                for n in range(100)
                for name, sender in ((b"one", one), (b"two", two))
            )
        )
        await reader.until(lambda: len(reader.entries) >= 200)
        assert [offset for offset, _ in reader.kept("a")] == list(range(1, 201))
        replay = await _of(two).history("a", None, 1000)
        assert replay.entries == [entry for _, entry, _ in reader.entries]
        for name in (b"one", b"two"):
            mine = [payload for _, payload in reader.kept("a") if payload.startswith(name)]
            assert mine == [b"%s %d" % (name, n) for n in range(100)]


def _of(recorder: Recorder) -> _KeepingBackend:
    backend = _keeping(recorder)
    assert backend is not None
    return backend


HISTORY_CONTRACT: list[Check] = [
    offsets_have_no_holes_and_begin_at_1,
    what_is_live_and_what_is_kept_are_the_same,
    what_is_not_kept_takes_no_place,
    a_history_is_read_since_a_place,
    a_place_that_is_none_is_not_recovered,
    too_much_that_was_missed_is_not_recovered_in_part,
    what_was_trimmed_is_not_recovered_in_part,
    a_room_keeps_what_the_most_generous_message_type_asks_for,
    entries_expire_and_the_position_stays,
    a_room_without_a_history_has_no_position,
    each_of_several_rooms_keeps_it_at_a_place_of_its_own,
    an_id_that_comes_again_is_kept_and_handed_over_once,
    rooms_of_histories_are_literal,
    histories_read_side_by_side_do_not_mix,
    an_id_that_comes_again_does_not_reach_who_came_since,
    concurrent_appends_of_two_instances_are_counted_as_one,
]
