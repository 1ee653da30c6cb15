"""Joins, leaves, and joins again that overtake one another; what a client is told though it is not accepted yet."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.histories import Instance, Passing, control, fleet
from tests.unit.played import serving, turns, until
from tests.unit.recovery.test_recovering import fill


class Gates:
    """Subscriptions of an instance are confirmed, or not, as the test says; in the order in which they were asked."""

    def __init__(self, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[asyncio.Future[None]] = []
        self.manager = instance.manager
        monkeypatch.setattr(instance.link, "subscribe", self._subscribe)

    async def _subscribe(self, rooms: Collection[str]) -> None:
        asked = asyncio.get_running_loop().create_future()
        self.asked.append(asked)
        await asked

    async def begin(self, connection: WebSocketConnection) -> asyncio.Task[None]:
        """A join that waits for its confirmation."""
        before = len(self.asked)
        task = asyncio.create_task(self.manager.join(["a"], connection))
        await until(lambda: len(self.asked) > before)
        return task


async def test_a_join_that_fails_is_rolled_back_though_an_earlier_one_has_ended(monkeypatch: pytest.MonkeyPatch):
    async with fleet() as [one]:
        connection = (await one.connect()).connection
        gates = Gates(one, monkeypatch)
        first = await gates.begin(connection)
        await one.manager.leave(["a"], connection)
        second = await gates.begin(connection)
        gates.asked[0].set_result(None)  # as a backend does where a room is not wanted any more
        await first
        gates.asked[1].set_exception(BackendUnavailable("it is not there"))
        with pytest.raises(BackendUnavailable):
            await second
        assert not one.manager.members("a")
        assert not one.manager.delivery.streams.get("a")


@pytest.mark.parametrize("same", [True, False], ids=["the same connection", "another one"])
async def test_no_position_is_read_before_the_room_is_subscribed_again(monkeypatch: pytest.MonkeyPatch, same: bool):
    async with fleet() as [one]:
        leaver, other = (await one.connect()).connection, (await one.connect()).connection
        gates = Gates(one, monkeypatch)
        first = await gates.begin(leaver)
        await one.manager.leave(["a"], leaver)
        second = await gates.begin(leaver if same else other)
        gates.asked[0].set_result(None)
        await first
        await turns()
        assert one.link.position_reads == [], "what came after it, and before the subscription, would be missed"
        gates.asked[1].set_result(None)
        await second
        assert one.link.position_reads == [["a"]]


async def test_a_position_that_is_wanted_for_a_room_that_was_left_is_not_read_for_who_joins_it_next(
    monkeypatch: pytest.MonkeyPatch,
):
    async with fleet() as [one]:
        leaver, other = (await one.connect()).connection, (await one.connect()).connection
        one.link.open.clear()
        busy = asyncio.create_task(one.manager.join(["busy"], other))
        await until(lambda: one.link.position_reads == [["busy"]])
        first = asyncio.create_task(one.manager.join(["a"], leaver))
        await turns()
        await one.manager.leave(["a"], leaver)
        gates = Gates(one, monkeypatch)
        second = await gates.begin(other)
        one.link.open.set()
        await asyncio.gather(busy, first)
        await turns()
        assert one.link.position_reads == [["busy"]]
        gates.asked[0].set_result(None)
        await second
        assert one.link.position_reads == [["busy"], ["a"]]


async def test_who_joins_before_it_is_accepted_is_told_its_positions_and_gaps():
    async with fleet() as [one]:
        start = await fill(one, 3)
        accept = asyncio.Event()

        async def handler(connection: WebSocketConnection) -> None:
            connection.bind(one.manager)
            await connection.join("a")
            await accept.wait()
            await connection.accept()
            await connection.closed.wait()

        async with (
            serving(handler, subprotocols=[SUBPROTOCOL], accept=False) as v1,
            serving(handler, accept=False) as plain,
        ):
            await until(lambda: len(one.manager.members("a")) == 2)
            await one.manager.send(["a"], Passing(n=1))
            await turns()
            one.link.lost = True
            await one.manager.send(["a"], Passing(n=2))
            one.link.restore()
            await turns()
            accept.set()
            await until(lambda: v1.connection.accepted and plain.connection.accepted)
            await turns()
            position = {"name": "position", "room": "a", "epoch": start.epoch, "offset": 3}
            assert position in control(v1)
            assert {"name": "gap", "room": "a"} in control(v1)
            assert control(plain) == []
