"""The statistics of all instances, on every kind of backend."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.commands import Answer
from jararaca_ws.errors import PermissionDenied
from jararaca_ws.figures import Figures, InstanceStatistics
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from tests.servers import RedisServer
from tests.unit.clusters import HubBackend, MakeBackend, cluster
from tests.unit.played import until

SOON = timedelta(milliseconds=100)


class Note(WebSocketMessage):
    MESSAGE_ID = "test_statistics.note"

    text: str = "hi"


def managers(make: MakeBackend, count: int = 2) -> list[WebSocketConnectionManager]:
    return [WebSocketConnectionManager(make()) for _ in range(count)]


async def test_two_instances_add_up(make: MakeBackend):
    async with cluster(*managers(make)) as instances:
        one, two = instances.managers
        ana = await instances.socket(0, "a", user="ana", v1=True)
        rui = await instances.socket(1, "a", "b", user="rui")
        await one.send(["a"], Note())
        await until(lambda: ana.server.frames and rui.server.frames)
        ana.server.text("größe")
        ana.connection.refuse(PermissionDenied("a"))
        await until(lambda: one.tally.messages_in == 1 and len(ana.server.frames) == 2)

        said = await one.statistics(patience(one))
        assert [instance.instance_id for instance in said.instances] == [one.instance_id, two.instance_id]
        here, there = said.instances
        assert (here.connections, here.rooms, here.users) == (1, 1, 1)
        assert (there.connections, there.rooms, there.users) == (1, 2, 1)
        assert (here.messages_in, here.bytes_in, here.sent) == (1, 7, 1)
        assert here.errors == {"permission_denied": 1}
        assert here.messages_out == 2
        assert there.messages_out == 1
        assert here.bytes_out == sum(map(len, ana.server.frames))
        assert there.bytes_out == sum(map(len, rui.server.frames))
        assert (said.total.connections, said.total.rooms, said.total.messages_in) == (2, 3, 1)
        assert said.total.messages_out == 3
        assert said.total.errors == {"permission_denied": 1}
        assert said.missing == (0 if said_by_backend(one) else None)
        assert one._surveys._open == {}
        # The one that was asked is the first.
        assert (await two.statistics(patience(two))).instances[0].instance_id == two.instance_id


def patience(manager: WebSocketConnectionManager) -> timedelta:
    """Long where all are waited for; where nobody knows how many there are, it always takes that long."""
    return timedelta(seconds=20) if said_by_backend(manager) else SOON


def said_by_backend(manager: WebSocketConnectionManager) -> bool:
    return not isinstance(manager.backend, HubBackend)


async def test_who_knows_how_many_there_are_does_not_wait_for_the_timeout(redis_server: RedisServer):
    async with cluster(*managers(lambda: RedisWebSocketConnectionBackend(redis_server.url), 3)) as instances:
        began = time.monotonic()
        said = await instances.managers[1].statistics(timedelta(seconds=30))
        assert (len(said.instances), said.missing) == (3, 0)
        assert time.monotonic() - began < 10


async def test_an_instance_that_hangs_is_missing(redis_server: RedisServer):
    async with cluster(*managers(lambda: RedisWebSocketConnectionBackend(redis_server.url), 3)) as instances:
        one, two, three = instances.managers

        def hang(rooms: object, message: object) -> None: ...

        two.delivery.on_command = hang
        said = await one.statistics(SOON)
        assert {instance.instance_id for instance in said.instances} == {one.instance_id, three.instance_id}
        assert said.missing == 1


async def test_while_the_backend_is_away_there_is_this_instance(redis_server: RedisServer):
    backend = RedisWebSocketConnectionBackend(redis_server.url, publish_timeout=timedelta(milliseconds=50))
    async with WebSocketConnectionManager(backend) as manager:
        redis_server.pause()
        try:
            async with asyncio.timeout(10):
                said = await manager.statistics()
        finally:
            redis_server.resume()
        assert [instance.instance_id for instance in said.instances] == [manager.instance_id]
        assert said.missing is None


async def test_an_instance_of_another_version(make: MakeBackend):
    async with cluster(*managers(make, 1)) as instances:
        (one,) = instances.managers
        answers = [
            json.dumps({"instance_id": "x", "uptime_s": 1, "connections": 2, "what_comes_later": 1}),
            json.dumps({"connections": "?"}),
        ]
        asking = asyncio.create_task(one.statistics(SOON))
        await until(lambda: one._surveys._open)
        (call,) = one._surveys._open
        survey = one._surveys._open[call]
        for text in answers:
            assert one._surveys.answered(Answer(call=call, text=text))
        assert survey.answers == {"x": InstanceStatistics(instance_id="x", uptime_s=1, connections=2)}
        assert (await asking).total.connections == 2
        assert not one._surveys.answered(Answer(call=call, text=answers[0])), "it is over"


async def test_many_may_ask_at_once(make: MakeBackend):
    async with cluster(*managers(make)) as instances:
        said = await asyncio.gather(
            *(manager.statistics(patience(manager)) for manager in instances.managers for _ in range(20))
        )
        assert {len(one.instances) for one in said} == {2}


async def test_cancellation_leaves_nothing(make: MakeBackend):
    async with cluster(*managers(make)) as instances:
        one, two = instances.managers

        def hang(rooms: object, message: object) -> None: ...

        two.delivery.on_command = hang
        asking = asyncio.create_task(one.statistics(timedelta(seconds=30)))
        await until(lambda: one._surveys._open)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert one._surveys._open == {}


def test_every_counter_is_a_figure():
    from dataclasses import fields

    from jararaca_ws.manager import Counters

    assert {field.name for field in fields(Counters)} - {"delivered"} <= set(Figures.model_fields)
