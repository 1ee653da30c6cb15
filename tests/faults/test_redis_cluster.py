"""A Redis cluster of three masters: the contract of a backend, slots that move, masters that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio.cluster import RedisCluster

from jararaca_ws.backends.base import Publication, Retention
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.testing import BACKEND_CONTRACT
from jararaca_ws.testing.recorder import Recorder
from tests.servers.redis_cluster import RedisClusterServers

pytestmark = pytest.mark.redis

KEEP = Retention(size=10_000, ttl_ms=600_000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    """One for all: every test has a prefix of its own."""
    servers = RedisClusterServers(tmp_path_factory.mktemp("cluster"), replicas=1)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def make(servers: RedisClusterServers, prefix: str, **options: object) -> RedisWebSocketConnectionBackend:
    conn = RedisCluster(host="127.0.0.1", port=servers.masters[-1].port)
    settings = {"probe_interval": timedelta(milliseconds=300), "prefix": prefix, **options}
    return RedisWebSocketConnectionBackend(conn, **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def started(backend: RedisWebSocketConnectionBackend) -> AsyncIterator[Recorder]:
    recorder = Recorder(backend)
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()


async def poll(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is watched has no event
            await asyncio.sleep(0.01)


# Two nodes are read side by side, so what goes to several rooms keeps no order with what goes to one of them.
ACROSS_ROOMS = {"sends_stay_in_order", "a_batch_is_sent_in_order"}
CHECKS = [check for check in BACKEND_CONTRACT if check.__name__ not in ACROSS_ROOMS]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Callable[..., object], cluster: RedisClusterServers):
    await check(lambda: make(cluster, f"c-{check.__name__}"))  # type: ignore[misc, attr-defined]


def kept(room: str, payload: bytes) -> Publication:
    return Publication([room], payload, f"{room} {payload.decode()}", KEEP)


async def test_order_holds_within_each_room(cluster: RedisClusterServers):
    rooms = [f"room-{n}" for n in range(30)]
    async with started(make(cluster, "order")) as one:
        await one.subscribe(*rooms)
        for n in range(20):
            await one.backend.send_many(  # type: ignore[attr-defined]
                [publication for room in rooms for publication in (kept(room, b"%d" % n), _loose(room, b"%d" % n))]
            )
        await one.until(lambda: len(one.sent) == len(one.entries) == 600)
        for room in rooms:
            assert one.kept(room) == [(n + 1, b"%d" % n) for n in range(20)]
            assert [payload for to, payload in one.sent if to == (room,)] == [b"%d" % n for n in range(20)]
        owners = {cluster.owner(f"{{{room}}}").port for room in rooms}
        assert len(owners) == 3, "all nodes had some"


def _loose(room: str, payload: bytes) -> Publication:
    return Publication([room], payload, f"{room} {payload.decode()} loose")


async def test_f12_a_room_whose_slot_moves_is_subscribed_at_its_new_node(cluster: RedisClusterServers):
    backend, sender = make(cluster, "moving"), make(cluster, "moving")
    source = cluster.owner("{moving}")
    [target] = [node for node in cluster.masters if node is not source][:1]
    [staying] = [room for n in range(1000) if cluster.owner(f"{{{(room := f'r{n}')}}}") is source][:1]
    async with started(backend) as one, started(sender):
        await one.subscribe("moving", staying)
        await sender.send_many([kept("moving", b"first")])
        [start] = await backend.positions(["moving"])
        assert start is not None
        migrating = asyncio.create_task(asyncio.to_thread(cluster.migrate, "{moving}", target))
        for n in range(200):
            await sender.send_many([kept("moving", b"%d" % n), kept(staying, b"%d" % n)])
        await migrating
        await one.until(lambda: bool(one.gaps))
        assert one.gaps == [(["moving"], False)]
        replay = await backend.history("moving", start, 1000)
        assert replay.recovered
        assert [entry.payload for entry in replay.entries] == [b"%d" % n for n in range(200)]
        await sender.send_many([kept("moving", b"after"), _loose("moving", b"after")])
        await one.until(lambda: bool(one.sent) and one.kept("moving")[-1][1] == b"after")
        await one.until(lambda: len(one.kept(staying)) == 200)
        live = one.kept("moving")
        assert live == sorted(set(live))
        await asyncio.to_thread(cluster.migrate, "{moving}", source)
        await one.until(lambda: len(one.gaps) == 2)
        await sender.send_many([kept("moving", b"back")])
        await one.until(lambda: one.kept("moving")[-1][1] == b"back")


async def test_a_room_is_found_where_its_slot_went_before_anybody_was_in_it(cluster: RedisClusterServers):
    source = cluster.owner("{late}")
    [target] = [node for node in cluster.masters if node is not source][:1]
    async with started(make(cluster, "late")) as one:
        await asyncio.to_thread(cluster.migrate, "{late}", target)
        await one.subscribe("late")
        await one.backend.send(["late"], b"1")
        await one.until(lambda: one.messages == [b"1"])
        await asyncio.to_thread(cluster.migrate, "{late}", source)


async def test_a_master_that_dies_is_followed_by_its_replica(cluster: RedisClusterServers):
    dying = cluster.masters[0]
    names = (f"r{n}" for n in range(1000))
    mine = next(room for room in names if cluster.owner(f"{{{room}}}") is dying)
    other = next(room for room in names if cluster.owner(f"{{{room}}}") is not dying)
    backend = make(cluster, "failover", publish_timeout=timedelta(seconds=20))
    async with started(backend) as one:
        await one.subscribe(mine, other)
        await backend.send_many([kept(mine, b"1"), kept(other, b"1")])
        [before] = await backend.positions([mine])
        assert before is not None
        await poll(lambda: "slave0" in str(dying.ask("INFO replication")))
        dying.ask("WAIT", 1, 5000)
        dying.kill()
        await backend.send_many([kept(mine, b"2"), kept(other, b"2")])  # waits for the replica to take over
        await one.until(lambda: any(mine in rooms for rooms, _ in one.gaps))
        assert all(other not in rooms for rooms, _ in one.gaps)
        replay = await backend.history(mine, before, 100)
        assert replay.recovered
        assert [entry.payload for entry in replay.entries] == [b"2"]
        assert replay.position.epoch != before.epoch
        await backend.send_many([kept(mine, b"3")])
        await one.until(lambda: one.kept(mine)[-1] == (3, b"3"))
        await poll(lambda: backend.healthy)


async def test_a_cluster_that_is_away_is_an_error_of_the_start():
    backend = RedisWebSocketConnectionBackend(RedisCluster(host="127.0.0.1", port=1))
    with pytest.raises(BackendUnavailable):
        await Recorder(backend).start()
    await backend.shutdown()
