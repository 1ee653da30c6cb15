"""What an instance missed of a room's history: read, and delivered in order before anything newer."""

from __future__ import annotations

import asyncio
import random
from itertools import chain

import pytest

from jararaca_ws.backends.base import Entry, Replay, StreamPosition
from jararaca_ws.delivery import recoverable
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.rooms import ALL_INSTANCES, instance_room
from jararaca_ws.supervision import Backoff
from tests.unit.histories import Kept, Passing, Store, control, fleet, frames, kept, position, settled
from tests.unit.played import turns, until


class KeptLong(WebSocketMessage):
    MESSAGE_ID = "healing.kept_long"
    DELIVERY = recoverable(size=10_000)

    n: int


async def test_a_kept_message_has_its_place_for_every_client():
    async with fleet() as [one]:
        v1, plain = await one.connect("a"), await one.connect("a", v1=False)
        await one.manager.send(["a"], Kept(n=1), id="first")
        await until(lambda: frames(v1) and frames(plain))
        epoch = frames(plain)[0]["epoch"]
        assert v1.server.frames == plain.server.frames
        assert plain.server.frames == [
            '{"MESSAGE_ID":"histories.kept","message":{"n":1,"padding":""},"id":"first","room":"a",'
            f'"epoch":"{epoch}","offset":1}}'
        ]


async def test_a_lost_link_costs_nothing_that_is_kept():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=1))
        await settled(one)
        one.link.lost = True
        for n in range(2, 6):
            await one.manager.send(["a"], Kept(n=n))
        one.link.restore()
        await one.manager.send(["a"], Kept(n=6))
        await until(lambda: len(kept(socket)) == 6)
        await settled(one)
        assert kept(socket) == [1, 2, 3, 4, 5, 6]
        assert [frame["offset"] for frame in frames(socket) if "offset" in frame] == [1, 2, 3, 4, 5, 6]
        assert control(socket, "gap") == [{"name": "gap", "room": "a"}, {"name": "gap", "room": None}]
        assert one.manager.counters.healed >= 4
        assert one.manager.counters.gaps == 1


async def test_what_was_lost_before_anything_was_kept_is_healed_too():
    async with fleet() as [one]:
        socket = await one.connect("a")
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=1))
        await one.manager.send(["a"], Kept(n=2))
        one.link.restore()
        await until(lambda: kept(socket) == [1, 2])


async def test_a_jump_without_any_word_of_a_gap_is_healed_before_anything_newer():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=1))
        await settled(one)
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=2))
        one.link.lost = False
        one.link.open.clear()
        await one.manager.send(["a"], Kept(n=3))
        await until(lambda: one.link.reads)
        await one.manager.send(["a"], Kept(n=4))
        await turns()
        assert kept(socket) == [1], "newer ones wait"
        one.link.open.set()
        await until(lambda: kept(socket) == [1, 2, 3, 4])
        await settled(one)
        assert kept(socket) == [1, 2, 3, 4]
        assert control(socket) == []


async def test_every_room_gets_its_gap_once_also_one_that_keeps_messages():
    """What is sent to it while the link is lost, and is not kept, leaves no trace."""
    async with fleet() as [one]:
        sockets = {room: await one.connect(room) for room in ("passing", "kept")}
        await one.manager.send(["kept"], Kept(n=1))
        await settled(one)
        one.link.lost = True
        await one.manager.send(["kept"], Passing(n=1))
        one.link.restore()
        await settled(one)
        for room, socket in sockets.items():
            assert control(socket, "gap") == [{"name": "gap", "room": room}, {"name": "gap", "room": None}]


@pytest.mark.parametrize("cause", ["trimmed", "wiped", "wiped and used again"])
async def test_when_healing_is_impossible_everybody_in_the_room_is_closed_with_4010(cause: str):
    class Few(Kept):
        MESSAGE_ID = "healing.few"
        DELIVERY = type(Kept.DELIVERY)(retention=Kept.DELIVERY.retention._replace(size=2))  # type: ignore[union-attr]

    async with fleet() as [one]:
        v1, plain, other = await one.connect("a"), await one.connect("a", v1=False), await one.connect("b")
        await one.manager.send(["a"], Few(n=1))
        await settled(one)
        one.link.lost = True
        if cause == "trimmed":
            for n in range(2, 6):
                await one.manager.send(["a"], Few(n=n))
        else:
            one.link.store.wipe()
            if cause != "wiped":
                await one.manager.send(["a"], Few(n=2))
        one.link.restore()
        await until(lambda: v1.server.close and plain.server.close)
        assert v1.server.close == plain.server.close == (4010, "insufficient state")
        assert other.connection.alive
        assert one.manager.counters.insufficient == 2
        late = await one.connect("a")
        await one.manager.send(["a"], Few(n=9))
        await until(lambda: any(frame.get("offset") for frame in frames(late)))
        assert late.connection.alive, "the room has moved on"


async def test_the_healer_tries_again_while_the_backend_is_away(monkeypatch: pytest.MonkeyPatch):
    async with fleet() as [one]:
        one.manager._healer._task._backoff = Backoff(first_s=0.001, max_s=0.01)  # type: ignore[union-attr]
        sockets = {room: await one.connect(room) for room in "abc"}
        for room in sockets:
            await one.manager.send([room], Kept(n=1))
        await settled(one)
        one.link.lost = True
        for room in sockets:
            await one.manager.send([room], Kept(n=2))
        one.link.away = True
        one.link.restore()
        await until(lambda: one.manager._healer._task.restarts >= 3)  # type: ignore[union-attr]
        await one.manager.send(["a"], Kept(n=3))
        await turns()
        assert not one.manager._healer.healthy  # type: ignore[union-attr]
        assert all(kept(socket) == [1] for socket in sockets.values())
        one.link.away = False
        await until(lambda: kept(sockets["a"]) == [1, 2, 3] and kept(sockets["b"]) == kept(sockets["c"]) == [1, 2])
        assert one.manager._healer.healthy  # type: ignore[union-attr]


async def test_after_a_lost_link_many_rooms_take_one_read_of_their_positions():
    async with fleet() as [one]:
        socket = await one.connect(*(f"r{n}" for n in range(100)))
        for n in range(100):
            await one.manager.send([f"r{n}"], Kept(n=n))
        await settled(one)
        one.link.position_reads.clear()
        one.link.lost = True
        await one.manager.send(["r7"], Kept(n=100))
        one.link.restore()
        await until(lambda: 100 in kept(socket))
        await settled(one)
        assert [len(rooms) for rooms in one.link.position_reads] == [100]
        assert [room for room, _ in one.link.reads] == ["r7"]


async def test_joins_of_one_moment_share_the_read_of_their_positions():
    async with fleet() as [one]:
        socket = await one.connect()
        await asyncio.gather(*(one.manager.join([f"r{n}"], socket.connection) for n in range(50)))
        assert len(one.link.position_reads) <= 2
        assert sorted(chain.from_iterable(one.link.position_reads)) == sorted(f"r{n}" for n in range(50))


async def test_a_join_whose_position_cannot_be_read_is_undone():
    async with fleet() as [one]:
        socket = await one.connect()
        one.link.away = True
        results = await asyncio.gather(
            *(one.manager.join([room], socket.connection) for room in "ab"), return_exceptions=True
        )
        assert [type(result) for result in results] == [BackendUnavailable] * 2
        assert (socket.connection.rooms, one.link.subscriptions) == (
            (),
            {instance_room(one.manager.instance_id), ALL_INSTANCES},
        )
        one.link.away = False
        await one.manager.join(["a"], socket.connection)


async def test_a_join_that_is_cancelled_leaves_the_others_of_its_read_alone():
    async with fleet() as [one]:
        sockets = [await one.connect() for _ in range(2)]
        one.link.open.clear()
        joins = [asyncio.create_task(one.manager.join(["a"], socket.connection)) for socket in sockets]
        await until(lambda: one.link.position_reads)
        joins[0].cancel()
        await turns()
        one.link.open.set()
        await joins[1]
        assert list(one.manager.members("a")) == [sockets[1].connection]


async def test_a_position_that_was_read_before_the_link_was_lost_counts_for_nothing():
    async with fleet() as [one]:
        socket = await one.connect()
        one.link.open.clear()
        join = asyncio.create_task(one.manager.join(["a"], socket.connection))
        await until(lambda: one.link.position_reads)
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=1))
        one.link.restore()
        one.link.open.set()
        await join
        assert [position["offset"] for position in control(socket, "position")] in ([], [1])
        assert one.manager.delivery.streams.position("a").offset == 1
        assert len(one.link.position_reads) == 2


async def test_a_position_that_was_read_for_an_earlier_member_counts_for_nothing():
    async with fleet() as [one]:
        socket = await one.connect()
        one.link.open.clear()
        first = asyncio.create_task(one.manager.join(["a"], socket.connection))
        await until(lambda: one.link.position_reads)
        await one.manager.leave(["a"], socket.connection)
        await one.manager.send(["a"], Kept(n=1))
        second = asyncio.create_task(one.manager.join(["a"], socket.connection))
        await turns()
        one.link.open.set()
        await asyncio.gather(first, second)
        await one.manager.send(["a"], Kept(n=2))
        await until(lambda: 2 in kept(socket))
        assert kept(socket) == [2]


async def test_two_rooms_of_one_message_bring_it_once_and_the_position_in_the_other():
    async with fleet() as [one]:
        both, plain, second = await one.connect("a", "b"), await one.connect("a", "b", v1=False), await one.connect("b")
        await one.manager.send(["a", "b", "nobody"], Kept(n=1))
        await settled(one)
        assert kept(both) == kept(plain) == kept(second) == [1]
        assert [(place["room"], place["offset"]) for place in control(both)] == [("b", 1)]
        assert control(plain) == control(second) == []
        await one.manager.send(["b"], Kept(n=2))
        await until(lambda: kept(both) == [1, 2])
        assert position(both, "a").offset == 1
        assert position(both, "b").offset == 2


async def test_two_rooms_of_one_message_bring_it_once_also_when_both_are_healed():
    async with fleet() as [one]:
        both = await one.connect("a", "b")
        for room in "ab":
            await one.manager.send([room], Kept(n=0))
        await settled(one)
        one.link.lost = True
        for n in range(1, 4):
            await one.manager.send(["a", "b"], Kept(n=n))
        one.link.restore()
        await one.manager.send(["b", "a"], Kept(n=4))
        await until(lambda: len(kept(both)) >= 6)
        await settled(one)
        assert kept(both) == [0, 0, 1, 2, 3, 4]
        assert {position(both, room).offset for room in "ab"} == {5}


async def test_thousands_of_messages_to_two_rooms_are_healed_and_come_once():
    async with fleet() as [one]:
        both = await one.connect("a", "b")
        await one.manager.send(["a", "b"], KeptLong(n=0))
        await settled(one)
        one.link.lost = True
        for n in range(1, 3000):
            await one.manager.send(["a", "b"], KeptLong(n=n))
        one.link.restore()
        # A message and a position for each, and two words of positions and gaps at the ends.
        await until(lambda: len(both.server.frames) >= 6000, timeout_s=30)
        await settled(one)
        got = [frame["message"]["n"] for frame in frames(both) if frame["MESSAGE_ID"] == KeptLong.MESSAGE_ID]
        assert got == list(range(3000))
        assert {position(both, room).offset for room in "ab"} == {3000}


async def test_a_long_hole_does_not_make_slow_consumers():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=0))
        await settled(one)
        one.link.lost = True
        for n in range(1, 101):
            await one.manager.send(["a"], Kept(n=n, padding="x" * 40_000))  # 4 MB, the queue takes one
        one.link.restore()
        await until(lambda: len(kept(socket)) == 101 or not socket.connection.alive)
        assert kept(socket) == list(range(101))
        assert socket.connection.alive


async def test_many_holes_at_once_do_not_make_slow_consumers():
    rooms = [f"room-{n}" for n in range(16)]
    async with fleet() as [one]:
        socket = await one.connect(*rooms)
        for room in rooms:
            await one.manager.send([room], Kept(n=0))
        await settled(one)
        one.link.lost = True
        for room in rooms:
            for n in range(1, 4):
                await one.manager.send([room], Kept(n=n, padding="x" * 40_000))  # 2 MB in all, the queue takes one
        one.link.restore()
        await until(lambda: len(kept(socket)) == 64 or not socket.connection.alive)
        assert socket.connection.alive
        assert all(kept(socket, room) == [0, 1, 2, 3] for room in rooms)


async def test_what_waits_and_is_in_no_history_is_dropped_and_counted():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=1))
        await settled(one)
        epoch = one.manager.delivery.streams.position("a").epoch
        for foreign in (StreamPosition(epoch, 50), StreamPosition("another", 2)):
            await one.manager.delivery.entry("a", Entry(foreign, "foreign", b"{}"), ["a"])
            await settled(one)
        await one.manager.delivery.entry("a", Entry(StreamPosition(epoch, 2), "no frame", b"\xff}"), ["a"])
        assert one.manager.counters.dropped == 3
        one.link.store.histories._rooms["a"].offset += 1
        await one.manager.send(["a"], Kept(n=2))
        await until(lambda: kept(socket) == [1, 2])


async def test_entries_that_could_not_wait_are_read():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=0))
        await settled(one)
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=1))
        one.link.lost = False
        one.link.open.clear()
        await one.manager.send(["a"], Kept(n=2))
        await until(lambda: one.link.reads)
        for n in range(3, 60):
            await one.manager.send(["a"], Kept(n=n, padding="x" * 40_000))  # more than may wait
            await until(lambda: one.link.is_idle)
        one.link.open.set()
        await until(lambda: len(kept(socket)) == 60 or not socket.connection.alive)
        assert kept(socket) == list(range(60))


async def test_a_room_that_is_left_while_it_is_healed():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=1))
        await settled(one)
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=2))
        one.link.open.clear()
        one.link.restore()
        await until(lambda: one.link.reads)
        await one.manager.leave(["a"], socket.connection)
        one.link.open.set()
        await one.manager.join(["a"], socket.connection)
        await one.manager.send(["a"], Kept(n=3))
        await until(lambda: 3 in kept(socket))
        assert kept(socket) == [1, 3]


@pytest.mark.parametrize("seed", range(20))
async def test_p2_each_gets_every_kept_message_once_in_order_whatever_the_links_do(seed: int):
    """Two senders, two receiving instances, rooms sent to together and alone, links that come and go."""
    chance = random.Random(seed)
    store = Store()
    async with fleet(2, store=store) as instances:
        sockets = [
            (await instance.connect(*rooms), rooms) for instance in instances for rooms in (("a",), ("b",), ("a", "b"))
        ]
        sent: dict[str, list[int]] = {"a": [], "b": []}
        for n in range(120):
            instance = chance.choice(instances)
            rooms = chance.choice((["a"], ["b"], ["a", "b"], ["b", "a"]))
            await chance.choice(instances).manager.send(rooms, Kept(n=n))
            for room in rooms:
                sent[room].append(n)
            fault = chance.random()
            if fault < 0.1:
                instance.link.lost = True
            elif fault < 0.2 and instance.link.lost:
                instance.link.restore()
            elif fault < 0.25:
                instance.link.lost = False  # and nobody says so
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        for instance in instances:
            instance.link.restore()
        await settled(*instances)
        for socket, rooms in sockets:
            assert socket.connection.alive
            expected = set().union(*(sent[room] for room in rooms))
            assert sorted(kept(socket)) == sorted(expected), "each, once"
            for room in rooms:
                assert kept(socket, room) == sorted(kept(socket, room)), "in order"
                assert position(socket, room).offset == len(sent[room])


async def test_a_history_that_cannot_be_understood_is_given_up_and_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    async with fleet() as [one]:
        broken, fine = await one.connect("a"), await one.connect("b")
        for room in "ab":
            await one.manager.send([room], Kept(n=1))
        await settled(one)
        read = one.link.history

        async def history(room: str, since: StreamPosition | None, limit: int) -> Replay:
            if room == "a":
                raise ValueError("nonsense")
            return await read(room, since, limit)

        one.link.history = history  # type: ignore[method-assign]
        one.link.lost = True
        for room in "ab":
            await one.manager.send([room], Kept(n=2))
        one.link.restore()
        await until(lambda: broken.server.close is not None and kept(fine) == [1, 2])
        assert broken.server.close == (4010, "insufficient state")
        assert "ValueError: nonsense" in caplog.text


async def test_a_room_that_is_left_in_a_long_hole_gets_no_more_of_it():
    async with fleet() as [one]:
        socket = await one.connect("a")
        await one.manager.send(["a"], Kept(n=0))
        await settled(one)
        one.link.lost = True
        for n in range(1, 21):
            await one.manager.send(["a"], Kept(n=n, padding="x" * 40_000))
        one.link.restore()
        await until(lambda: len(kept(socket)) > 1)
        await one.manager.leave(["a"], socket.connection)
        got = len(kept(socket)) + len(socket.connection.outbound)
        await until(lambda: one.manager._healer is not None and not one.manager._healer._rooms)
        await settled(one)
        assert len(kept(socket)) <= got + 1 < 21


async def test_what_came_through_another_room_is_remembered_while_a_room_is_healed():
    """Though more than a thousand messages to two rooms come to the instance meanwhile."""
    async with fleet() as [one]:
        await one.manager.send(["a"], Kept(n=0))
        socket = await one.connect("a", "b")
        await one.connect("c", "d")
        one.link.lost = True
        await one.manager.send(["a"], Kept(n=1))
        one.link.lost = False
        one.link.away = True
        for n in range(2, 300):
            await one.manager.send(["a", "b"], Kept(n=n))
        for n in range(1100):
            await one.manager.send(["c", "d"], Kept(n=n))
        await until(lambda: one.link.is_idle)
        one.link.away = False
        await settled(one)
        assert sorted(kept(socket)) == list(range(1, 300))
