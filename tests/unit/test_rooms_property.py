"""Whatever sockets and links do: rooms, subscriptions and streams say the same, and no task is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from jararaca_ws.backends.base import StreamPosition
from jararaca_ws.rooms import ALL_INSTANCES, instance_room
from tests.unit.histories import Instance, Kept, Passing, Store, fleet, kept, settled
from tests.unit.played import Socket

ROOMS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)
NOWHERE = StreamPosition("", 0)


class Rooms(RuleBasedStateMachine):
    """Joins, leaves, sends, disconnects and lost links of one instance, in an event loop of its own."""

    sockets = Bundle("sockets")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.fleet = fleet(store=Store())
        [self.one] = self.run(self.fleet.__aenter__())
        # What each live socket is in, and which kept messages it has been sent since.
        self.rooms: dict[Socket, set[str]] = {}
        self.owed: dict[Socket, list[int]] = {}
        self.count = 0

    one: Instance

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @rule(target=sockets, v1=st.booleans(), recovers=st.booleans())
    def connect(self, v1: bool, recovers: bool) -> Socket:
        socket = self.run(
            self.one.connect(v1=v1 or recovers, recover=dict.fromkeys("ab", NOWHERE) if recovers else None)
        )
        self.rooms[socket], self.owed[socket] = set(), []
        return socket

    @rule(socket=sockets, rooms=ROOMS)
    def join(self, socket: Socket, rooms: list[str]) -> None:
        self.run(self.one.manager.join(rooms, socket.connection))
        self.rooms[socket].update(rooms)

    @rule(socket=sockets, rooms=ROOMS)
    def leave(self, socket: Socket, rooms: list[str]) -> None:
        self.settle()  # or it would be open whether what is under way still arrives
        self.run(self.one.manager.leave(rooms, socket.connection))
        self.rooms[socket].difference_update(rooms)

    @rule(rooms=ROOMS)
    def send(self, rooms: list[str]) -> None:
        self.count += 1
        self.run(self.one.manager.send(rooms, Kept(n=self.count)))
        self.run(self.one.manager.send(rooms, Passing(n=self.count)))
        for socket, joined in self.rooms.items():
            if joined.intersection(rooms):
                self.owed[socket].append(self.count)

    @rule(socket=consumes(sockets), meanwhile=ROOMS)
    def disconnect(self, socket: Socket, meanwhile: list[str]) -> None:
        async def gone() -> None:
            joining = asyncio.create_task(self.one.manager.join(meanwhile, socket.connection))
            socket.server.disconnect()
            await socket.ended()
            await asyncio.gather(joining, return_exceptions=True)

        self.run(gone())
        del self.rooms[socket], self.owed[socket]

    @rule()
    def lose_the_link(self) -> None:
        self.one.link.lost = True

    @rule()
    def restore_the_link(self) -> None:
        if self.one.link.lost:
            self.run(self.restored())

    async def restored(self) -> None:
        self.one.link.restore()

    def settle(self) -> None:
        self.restore_the_link()
        self.run(settled(self.one))

    @invariant()
    def all_say_the_same(self) -> None:
        manager = self.one.manager
        live = {socket.connection: joined for socket, joined in self.rooms.items() if joined}
        assert {room for joined in live.values() for room in joined} == set(manager.rooms)
        for room in manager.rooms:
            assert set(manager.members(room)) == {connection for connection, joined in live.items() if room in joined}
        assert self.one.link.subscriptions == {*manager.rooms, instance_room(manager.instance_id), ALL_INSTANCES}
        assert {room for room in "abc" if room in manager.delivery.streams} == set(manager.rooms)
        assert set(manager.connections) == {socket.connection for socket in self.rooms}

    def teardown(self) -> None:
        try:
            self.settle()
            for socket, owed in self.owed.items():
                assert socket.connection.alive
                # A client that came from nowhere may be given what was kept before it joined, never less.
                got = [n for n in kept(socket) if n in set(owed)]
                assert sorted(got) == owed, "each, once"
                for room in "abc":
                    assert kept(socket, room) == sorted(kept(socket, room)), "in the order of the room"
        finally:
            self.run(self.fleet.__aexit__(None, None, None))  # asserts that no task is left
            self.runner.close()


@pytest.mark.timeout(60)
def test_f27_rooms_subscriptions_and_streams_say_the_same() -> None:
    quick = settings(
        max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(Rooms, settings=quick)
