"""Clients that come back: what they missed, in order and once, then what is live; on any instance."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.backends.base import Replay, StreamPosition
from jararaca_ws.delivery import recoverable
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import SUBPROTOCOL
from jararaca_ws.wire.retained import RECOVER_SUBPROTOCOL, RecoveryRequest
from tests.unit.histories import (
    Instance,
    Kept,
    Passing,
    Store,
    control,
    fleet,
    frames,
    kept,
    position,
    recover_frame,
    settled,
)
from tests.unit.played import serving, turns, until, until_closed

NOWHERE = StreamPosition("", 0)


async def fill(instance: Instance, count: int, room: str = "a", padding: str = "") -> StreamPosition:
    """So many messages are kept; the place before the first of them."""
    before = instance.link.store.histories.position(room)
    for n in range(count):
        await instance.manager.send([room], Kept(n=n, padding=padding))
    now = instance.link.store.histories.position(room)
    assert now is not None
    await settled(instance)
    return before or StreamPosition(now.epoch, 0)


async def test_a_client_gets_what_it_missed_on_another_instance_and_then_what_is_live():
    async with fleet(2) as [one, two]:
        first = await one.connect("a")
        await fill(one, 3)
        at = position(first, "a")
        await first.connection.close()
        for n in range(3, 6):
            await one.manager.send(["a"], Kept(n=n))
        again = await two.connect("a", recover={"a": at})
        await until(lambda: len(kept(again)) == 3)
        await one.manager.send(["a"], Kept(n=6))
        await until(lambda: len(kept(again)) == 4)
        assert kept(first) + kept(again) == list(range(7))
        answer = {"name": "recovered", "room": "a", "recovered": True, "epoch": at.epoch, "offset": 6}
        assert frames(again)[0]["MESSAGE_ID"] == "jararaca.recovered"
        assert control(again) == [answer]
        assert two.manager.counters.recovered == 1


async def test_the_answer_comes_after_the_join_whichever_was_first():
    async with fleet() as [one]:
        start = await fill(one, 2)
        before = await one.connect(recover={"a": start})
        await turns()
        assert frames(before) == [], "nothing before the application has let it in"
        await one.manager.join(["a"], before.connection)
        await until(lambda: kept(before) == [0, 1])

        async with serving(until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]) as after:
            await until(lambda: after.connection in one.manager.connections)
            await one.manager.join(["a"], after.connection)
            await one.manager.send(["a"], Kept(n=2))
            await turns()
            assert frames(after) == [], "what is kept waits for its positions"
            after.server.text(recover_frame({"a": start}))
            await until(lambda: kept(after) == [0, 1, 2])
            await settled(one)
            assert kept(after) == [0, 1, 2]


async def test_what_a_connection_is_excluded_from_is_not_replayed_to_it():
    async with (
        fleet() as [one],
        serving(until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]) as socket,
    ):
        start = await fill(one, 2)
        await until(lambda: socket.connection in one.manager.connections)
        await one.manager.join(["a"], socket.connection)
        await one.manager.send(["a"], Kept(n=2), exclude=socket.connection)
        await one.manager.send(["a"], Kept(n=3))
        await settled(one)
        socket.server.text(recover_frame({"a": start}))
        await until(lambda: kept(socket) == [0, 1, 3])
        assert [(told["name"], told["offset"]) for told in control(socket)] == [("recovered", 4), ("position", 3)]


async def test_a_room_that_is_never_joined_is_never_answered():
    async with fleet() as [one]:
        start = await fill(one, 3, "secret")
        await one.connect("secret")
        socket = await one.connect("a", recover={"secret": start, "a": NOWHERE})
        await one.manager.send(["secret"], Kept(n=9))
        await settled(one)
        assert [answer["room"] for answer in control(socket)] == ["a"]
        assert kept(socket) == []
        assert [room for room, _ in one.link.reads] == ["a"]


async def test_a_room_that_is_left_and_joined_again_is_answered_once():
    async with fleet() as [one]:
        start = await fill(one, 2)
        socket = await one.connect("a", recover={"a": start})
        await until(lambda: kept(socket) == [0, 1])
        await one.manager.leave(["a"], socket.connection)
        await one.manager.join(["a"], socket.connection)
        await one.manager.send(["a"], Kept(n=2))
        await until(lambda: kept(socket) == [0, 1, 2])
        assert [answer["name"] for answer in control(socket)] == ["recovered", "position"]


@pytest.mark.parametrize(
    ("since", "recovered"),
    [
        (lambda top: top, True),
        (lambda top: top._replace(offset=top.offset - 300), True),
        (lambda top: top._replace(offset=top.offset - 301), False),
        (lambda top: top._replace(offset=top.offset + 1), False),
        (lambda top: top._replace(offset=2**63 - 1), False),
        (lambda top: top._replace(epoch="another"), False),
        (lambda top: NOWHERE, False),
    ],
    ids=["nothing missed", "300 missed", "301 missed", "future", "far future", "epoch", "never was anywhere"],
)
async def test_f7_b38_what_cannot_be_recovered_is_said_with_the_present_position(since: Any, recovered: bool):
    async with fleet() as [one]:
        await fill(one, 310)
        top = one.link.store.histories.position("a")
        assert top is not None
        socket = await one.connect("a", recover={"a": since(top)})
        await settled(one)
        assert control(socket) == [
            {"name": "recovered", "room": "a", "recovered": recovered, "epoch": top.epoch, "offset": top.offset}
        ]
        missed = top.offset - since(top).offset if recovered else 0
        assert kept(socket) == list(range(310 - missed, 310)), "never a part"
        await one.manager.send(["a"], Kept(n=1000))
        await until(lambda: 1000 in kept(socket))


async def test_a_history_that_is_ahead_of_what_has_arrived_brings_nothing_twice():
    async with fleet() as [one]:
        start = await fill(one, 2)
        await one.connect("a")
        one.link.arrives.clear()
        for n in (2, 3):
            await one.manager.send(["a"], Kept(n=n))
        socket = await one.connect("a", recover={"a": start})
        await until(lambda: kept(socket) == [0, 1, 2, 3])
        one.link.arrives.set()
        await one.manager.send(["a"], Kept(n=4))
        await until(lambda: 4 in kept(socket))
        await settled(one)
        assert kept(socket) == [0, 1, 2, 3, 4]
        assert not one.manager.delivery._held


async def test_an_empty_room_is_recovered_from_nowhere():
    async with fleet() as [one]:
        socket = await one.connect("a", recover={"a": NOWHERE})
        await settled(one)
        assert control(socket) == [{"name": "recovered", "room": "a", "recovered": True, "epoch": "", "offset": 0}]
        await one.manager.send(["a"], Kept(n=1))
        await until(lambda: kept(socket) == [1])


async def test_a_slow_client_gets_a_long_replay_at_its_own_pace():
    async with fleet() as [one]:
        start = await fill(one, 300, padding="x" * 12_000)  # 3.6 MB, the queue takes one
        async with serving(
            until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            socket.server.taking.clear()
            socket.server.text(recover_frame({"a": start}))
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.join(["a"], socket.connection)
            await turns(200)
            assert socket.connection.outbound.size <= 600_000
            for n in range(300, 305):
                await one.manager.send(["a"], Kept(n=n))
            await turns(50)
            socket.server.taking.set()
            await until(lambda: len(kept(socket)) == 305 or not socket.connection.alive)
            assert kept(socket) == list(range(305))
            assert socket.connection.alive


@pytest.mark.parametrize(("count", "recovered"), [(3, True), (4, False)])
async def test_p4_a_replay_of_too_many_bytes_is_said_to_be_none(count: int, recovered: bool):
    settings = WebSocketSettings(max_recovered_bytes=3 * 1100)
    async with fleet() as [one]:
        start = await fill(one, count, padding="x" * 1000)
        async with serving(
            until_closed, manager=one.manager, settings=settings, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            socket.server.text(recover_frame({"a": start}))
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.join(["a"], socket.connection)
            await until(lambda: control(socket, "recovered"))
            await settled(one)
            [answer] = control(socket, "recovered")
            assert answer["recovered"] is recovered
            assert len(kept(socket)) == (count if recovered else 0)


async def test_a_replay_that_cannot_be_completed_is_never_left_as_it_is():
    class Few(Kept):
        MESSAGE_ID = "recovery.few"
        DELIVERY = recoverable(size=20)

    async with fleet() as [one]:
        for n in range(20):
            await one.manager.send(["a"], Few(n=n, padding="x" * 100_000))
        start = one.link.store.histories.position("a")
        assert start is not None
        async with serving(
            until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            socket.server.text(recover_frame({"a": start._replace(offset=0)}))
            await until(lambda: socket.connection in one.manager.connections)
            socket.server.taking.clear()
            await one.manager.join(["a"], socket.connection)
            await turns(200)
            for n in range(20, 60):
                await one.manager.send(["a"], Few(n=n))
            await turns()
            socket.server.taking.set()
            await until(lambda: socket.server.close is not None)
            assert socket.server.close == (4010, "insufficient state")
            assert [frame["message"]["n"] for frame in frames(socket)[1:]] == list(range(20))


MALFORMED = {
    "negative": '{"a":{"epoch":"x","offset":-1}}',
    "2^64": '{"a":{"epoch":"x","offset":18446744073709551616}}',
    "2^63": '{"a":{"epoch":"x","offset":9223372036854775808}}',
    "a fraction": '{"a":{"epoch":"x","offset":1.5}}',
    "a string": '{"a":{"epoch":"x","offset":"1"}}',
    "no offset": '{"a":{"epoch":"x"}}',
    "a long epoch": json.dumps({"a": {"epoch": "x" * 65, "offset": 1}}),
    "1000 rooms": json.dumps({f"r{n}": {"epoch": "x", "offset": 1} for n in range(1000)}),
    "129 rooms": json.dumps({f"r{n}": {"epoch": "x", "offset": 1} for n in range(129)}),
    "a list": "[]",
    "nothing": "null",
}


@pytest.mark.parametrize("rooms", MALFORMED.values(), ids=MALFORMED.keys())
async def test_b38_malformed_positions_close_with_4501(rooms: str, caplog: pytest.LogCaptureFixture):
    async with fleet() as [one]:
        frame = f'{{"MESSAGE_ID":"jararaca.recover","message":{{"rooms":{rooms}}}}}'
        async with serving(
            until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            socket.server.text(frame)
            await until(lambda: socket.server.close is not None)
            assert socket.server.close == (4501, "bad_request: the positions were refused")
            assert "jararaca.recover" in caplog.text


async def test_128_rooms_are_recovered():
    async with fleet() as [one]:
        rooms = {f"r{n}": NOWHERE for n in range(128)}
        socket = await one.connect(*rooms, recover=rooms)
        await settled(one)
        assert [answer["room"] for answer in control(socket)] == list(rooms)


@pytest.mark.parametrize("first", ['{"MESSAGE_ID":"app.hello","message":{}}', "no JSON", "nothing at all"])
async def test_a_client_that_sends_no_positions_loses_nothing_from_its_join_on(first: str):
    settings = WebSocketSettings(recover_timeout=timedelta(milliseconds=50))
    async with fleet(settings=settings) as [one]:
        await fill(one, 2)
        read: list[Any] = []

        async def handler(connection: Any) -> None:
            while (message := await connection.inbound.get())["type"] != "websocket.disconnect":
                read.append(message["text"])

        async with serving(
            handler, manager=one.manager, settings=settings, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.join(["a"], socket.connection)
            await one.manager.send(["a"], Kept(n=2))
            await one.manager.send(["a"], Passing(n=0))
            await until(lambda: frames(socket))
            assert kept(socket) == [], "but what is not kept comes at once"
            if first != "nothing at all":
                socket.server.text(first)
            await until(lambda: kept(socket) == [2])
            await one.manager.send(["a"], Kept(n=3))
            await until(lambda: kept(socket) == [2, 3])
            assert [(told["name"], told["offset"]) for told in control(socket)] == [("position", 2)]
            assert read == ([] if first == "nothing at all" else [first]), "it is the application's"


async def test_the_application_never_sees_the_positions_and_a_second_frame_is_its_own():
    async with fleet() as [one]:
        read: list[Any] = []

        async def handler(connection: Any) -> None:
            while (message := await connection.inbound.get())["type"] != "websocket.disconnect":
                read.append(message["text"])

        async with serving(handler, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL], manager=one.manager) as socket:
            for _ in range(2):
                socket.server.text(recover_frame({}))
            await until(lambda: read)
            assert read == [recover_frame({})]
            assert socket.server.sent[0]["subprotocol"] == SUBPROTOCOL


@pytest.mark.parametrize("offered", [[], [SUBPROTOCOL], [RECOVER_SUBPROTOCOL]])
async def test_who_did_not_offer_to_recover_is_not_held_up(offered: list[str]):
    async with fleet() as [one]:
        async with serving(until_closed, manager=one.manager, subprotocols=offered) as socket:
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.join(["a"], socket.connection)
            await one.manager.send(["a"], Kept(n=1))
            await until(lambda: kept(socket) == [1])
            assert control(socket) == []
            assert socket.connection.recovery is None


async def test_v1_clients_are_told_where_they_join_a_room_that_keeps_something():
    async with fleet() as [one]:
        await fill(one, 3)
        v1, plain, empty = await one.connect("a"), await one.connect("a", v1=False), await one.connect("b")
        await settled(one)
        assert [(told["name"], told["room"], told["offset"]) for told in control(v1)] == [("position", "a", 3)]
        assert frames(plain) == frames(empty) == []


async def test_who_comes_back_to_a_backend_without_histories_is_told_so():
    class Plain:
        """Four methods."""

        def configure(self, broadcast: Any, send: Any, shutdown_event: Any) -> None:
            self.sends = send

        async def broadcast(self, message: bytes) -> None: ...

        async def send(self, rooms: list[str], message: bytes) -> None:
            await self.sends(rooms, message)

        async def shutdown(self) -> None: ...

    async with WebSocketConnectionManager(Plain()) as manager:
        async with serving(until_closed, manager=manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]) as socket:
            socket.server.text(recover_frame({"a": StreamPosition("x", 3)}))
            await until(lambda: socket.connection in manager.connections)
            await manager.join(["a", "b"], socket.connection)
            await manager.send(["a"], Passing(n=1))
            await until(lambda: control(socket))
            assert control(socket) == [{"name": "recovered", "room": "a", "recovered": False, "epoch": "", "offset": 0}]
        with pytest.raises(ConfigurationError, match="keeps no histories"):
            await manager.send(["a"], Kept(n=1))
        with pytest.raises(ConfigurationError, match="keeps no histories"):
            await manager.history("a")


async def test_thousands_who_come_back_from_one_place_share_one_read():
    async with fleet() as [one]:
        start = await fill(one, 5)
        await one.connect("a")
        one.link.open.clear()
        sockets = [await one.connect("a", recover={"a": start}) for _ in range(50)]
        await turns()
        assert len(one.link.reads) == 1
        one.link.open.set()
        await until(lambda: all(kept(socket) == list(range(5)) for socket in sockets))
        assert len(one.link.reads) == 1


async def test_who_goes_while_it_reads_for_all_takes_nothing_from_the_others():
    async with fleet() as [one]:
        start = await fill(one, 5)
        await one.connect("a")
        one.link.open.clear()
        sockets = [await one.connect("a", recover={"a": start}) for _ in range(3)]
        await turns()
        sockets[0].server.disconnect()
        await sockets[0].ended()
        await turns()
        one.link.open.set()
        await until(lambda: all(kept(socket) == list(range(5)) for socket in sockets[1:]))


async def test_a_recovery_waits_for_a_backend_that_is_away(monkeypatch: pytest.MonkeyPatch):
    async with fleet() as [one]:
        start = await fill(one, 2)
        socket = await one.connect(recover={"a": start})
        await one.manager.join(["a"], (await one.connect()).connection)
        one.link.away = True
        await one.manager.join(["a"], socket.connection)
        await until(lambda: len(one.link.reads) >= 2)
        one.link.away = False
        await until(lambda: kept(socket) == [0, 1])

        monkeypatch.setattr("jararaca_ws.recovery.recovering._PATIENCE", timedelta(0))
        socket = await one.connect(recover={"a": start})
        one.link.away = True
        await one.manager.join(["a"], socket.connection)
        await until(lambda: socket.server.close is not None)
        assert socket.server.close == (1013, "try again later")


@pytest.mark.parametrize("count", [3, 300])
async def test_a_message_to_two_rooms_that_both_are_recovered_comes_once(count: int):
    async with fleet() as [one]:
        for n in range(count):
            await one.manager.send(["a", "b"], Kept(n=n))
        places = {room: one.link.store.histories.position(room) for room in "ab"}
        starts = {room: place._replace(offset=0) for room, place in places.items() if place is not None}
        socket = await one.connect("a", "b", recover=starts)
        await settled(one)
        await until(lambda: {position(socket, room).offset for room in "ab"} == {count})
        assert kept(socket) == list(range(count))


async def test_a_client_that_never_comes_leaves_nothing_behind():
    async with fleet() as [one]:
        async with serving(
            until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.join(["a"], socket.connection)
            await fill(one, 2)
            socket.server.disconnect()
            await socket.ended()
        assert not one.manager._recoveries._recovering
        assert not one.manager.delivery._held
        assert len(one.manager.delivery.streams) == 0


async def test_the_history_of_a_room():
    async with fleet() as [one]:
        start = await fill(one, 5)
        everything = await one.manager.history("a")
        assert [entry.offset for entry in everything.messages] == [1, 2, 3, 4, 5]
        assert everything.messages[2].message == Kept(n=2)
        assert json.loads(everything.messages[0].data) == {
            "MESSAGE_ID": Kept.MESSAGE_ID,
            "message": {"n": 0, "padding": ""},
        }
        assert (everything.position, everything.recovered) == (start._replace(offset=5), True)
        newest = await one.manager.history("a", limit=2)
        assert [entry.offset for entry in newest.messages] == [4, 5]
        later = await one.manager.history("a", since=start._replace(offset=3))
        assert [entry.offset for entry in later.messages] == [4, 5]
        too_many = await one.manager.history("a", since=start, limit=4)
        assert (too_many.recovered, too_many.messages) == (False, [])
        for limit in (0, 10_001):
            with pytest.raises(ValueError, match="limit"):
                await one.manager.history("a", limit=limit)


@pytest.mark.parametrize("seed", range(30))
async def test_p2_a_replay_is_joined_with_what_is_live_without_a_hole_or_a_double(seed: int):
    """Clients that come and go on two instances, under sends, slow sockets, slow reads and lost links."""
    chance = random.Random(seed)
    async with fleet(2, store=Store()) as instances:
        anchor = [await instance.connect("a", "b") for instance in instances]
        sent: dict[str, list[int]] = {"a": [], "b": []}
        # Each client: what it has so far, by room, over all its sockets.
        clients: list[dict[str, Any]] = [{"socket": None, "got": [], "at": {}} for _ in range(4)]

        async def come(client: dict[str, Any]) -> None:
            known = client["at"] or dict.fromkeys("ab", NOWHERE)
            client["socket"] = await chance.choice(instances).connect("a", "b", recover=known)

        def collect(client: dict[str, Any]) -> None:
            socket = client["socket"]
            for answer in control(socket, "recovered"):
                assert answer["recovered"], answer
            client["got"] += kept(socket)
            for room in "ab":
                at = position(socket, room)
                if at != NOWHERE:
                    client["at"][room] = at

        for client in clients:
            await come(client)
        await settled(*instances)
        for n in range(100):
            rooms = chance.choice((["a"], ["b"], ["a", "b"]))
            await chance.choice(instances).manager.send(rooms, Kept(n=n))
            for room in rooms:
                sent[room].append(n)
            client = chance.choice(clients)
            link = chance.choice(instances).link
            match chance.randrange(8):
                case 0 if n > 5 and all(
                    client["at"].get(room) or position(client["socket"], room).epoch for room in "ab"
                ):
                    client["socket"].server.disconnect()
                    await client["socket"].ended()
                    collect(client)
                    await come(client)
                case 1:
                    client["socket"].server.taking.clear()
                case 2:
                    client["socket"].server.taking.set()
                case 3:
                    link.lost = True
                case 4 if link.lost:
                    link.restore()
                case 5:
                    link.open.clear()
                case 6:
                    link.open.set()
            for instance in instances:  # or nobody could join any more
                if n % 10 == 9:
                    instance.link.open.set()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        for instance in instances:
            instance.link.open.set()
            instance.link.restore()
        for client in clients:
            client["socket"].server.taking.set()
        await settled(*instances)
        for client in clients:
            assert client["socket"].connection.alive
            collect(client)
            assert {room: at.offset for room, at in client["at"].items()} == {
                room: len(numbers) for room, numbers in sent.items()
            }
            assert set(client["got"]) == set(sent["a"]) | set(sent["b"]), "no hole"
        for socket in anchor:
            assert sorted(kept(socket)) == sorted(set(sent["a"]) | set(sent["b"])), "no hole, no double"


async def test_a_recovery_that_fails_is_logged_and_closes_with_1011(caplog: pytest.LogCaptureFixture):
    async with fleet() as [one]:
        start = await fill(one, 2)
        await one.connect("a")

        async def history(room: str, since: StreamPosition | None, limit: int) -> Replay:
            raise ValueError("nonsense")

        one.link.history = history  # type: ignore[method-assign]
        socket = await one.connect("a", recover={"a": start})
        await until(lambda: socket.server.close is not None)
        assert socket.server.close == (1011, "")
        assert "ValueError: nonsense" in caplog.text


async def test_a_room_that_is_left_in_a_replay_gets_no_more_of_it():
    async with fleet() as [one]:
        starts = {"a": await fill(one, 100, padding="x" * 20_000), "b": await fill(one, 3, "b")}
        socket = await one.connect(recover=starts)
        socket.server.taking.clear()
        await one.manager.join(["a", "b"], socket.connection)
        await turns(100)
        await one.manager.leave(["a"], socket.connection)
        socket.server.taking.set()
        await until(lambda: kept(socket, "b") == [0, 1, 2])
        await settled(one)
        assert 0 < len(kept(socket, "a")) < 100
        assert not one.manager.delivery._held


async def test_nothing_of_a_room_follows_the_word_that_it_was_left():
    async with fleet() as [one]:
        start = await fill(one, 100, padding="x" * 20_000)
        socket = await one.connect(recover={"a": start})
        socket.server.taking.clear()
        await one.manager.join(["a"], socket.connection)
        await turns(100)
        one.manager._joining.withdraw(["a"], socket.connection)  # as `leave_user` and `reauthorize_user` do
        socket.server.taking.set()
        await settled(one)
        await turns(100)
        names = [frame["MESSAGE_ID"] for frame in frames(socket)]
        assert names[-1] == "jararaca.left"
        assert 0 < len(kept(socket, "a")) < 100


async def test_a_connection_that_is_taken_out_and_in_again_waits_for_its_positions_still():
    async with fleet() as [one]:
        start = await fill(one, 2)
        async with serving(
            until_closed, manager=one.manager, subprotocols=[SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        ) as socket:
            await until(lambda: socket.connection in one.manager.connections)
            await one.manager.remove_websocket(socket.connection)
            await one.manager.join(["a"], socket.connection)
            socket.server.text(recover_frame({"a": start}))
            await until(lambda: kept(socket) == [0, 1])


def test_only_the_first_word_of_a_client_counts():
    request = RecoveryRequest()
    came: list[bool] = []
    request.on_come = lambda: came.append(True)
    assert request.take({"text": recover_frame({"a": NOWHERE})})
    request.come({})
    assert (request.positions, came) == ({"a": NOWHERE}, [True])


async def test_garbage_in_a_history_is_dropped_and_counted():
    async with fleet() as [one]:
        start = await fill(one, 2)
        entries = one.link.store.histories._rooms["a"].entries
        entries[0] = entries[0]._replace(payload=b"garbage")
        socket = await one.connect("a", recover={"a": start})
        await until(lambda: kept(socket) == [1])
        assert one.manager.counters.dropped == 1


async def test_what_came_through_another_room_is_remembered_while_a_replay_waits():
    """Though more than a thousand messages to two rooms come to the instance meanwhile."""
    async with fleet() as [one]:
        start = await fill(one, 5)
        await one.connect("c", "d")
        socket = await one.connect(recover={"a": start})
        await until(lambda: socket.connection.recovery is not None and socket.connection.recovery.has_come)
        await one.manager.join(["b"], socket.connection)
        await one.manager.join(["a"], socket.connection)
        one.link.open.clear()  # the history is slow
        await turns()
        for n in range(5, 305):
            await one.manager.send(["a", "b"], Kept(n=n))
        for n in range(1100):
            await one.manager.send(["c", "d"], Kept(n=n))
        await until(lambda: one.link.is_idle)
        one.link.open.set()
        await settled(one)
        assert sorted(kept(socket)) == list(range(305))


async def test_a_client_with_which_another_subprotocol_was_agreed_is_told_nothing_and_waits_for_nothing():
    async with fleet() as [one]:
        await fill(one, 3)

        async def handler(connection: WebSocketConnection) -> None:
            connection.bind(one.manager)
            await connection.websocket.accept(subprotocol="other")
            await connection.join("a")
            await connection.closed.wait()

        offered = ["other", SUBPROTOCOL, RECOVER_SUBPROTOCOL]
        async with serving(handler, subprotocols=offered, accept=False) as socket:
            await until(lambda: one.manager.members("a"))
            await turns()
            await one.manager.send(["a"], Kept(n=9))
            await settled(one)
            assert kept(socket) == [9]
            assert control(socket) == []
