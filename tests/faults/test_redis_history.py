"""Histories and second tries on a real redis-server that is killed, emptied, full, read-only, and misheard."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jararaca_ws.backends.base import Publication, Replay, Retention, StreamPosition
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.testing import FaultProxy
from jararaca_ws.testing.recorder import Recorder
from tests.servers import RedisServer

pytestmark = pytest.mark.redis

KEEP = Retention(size=10_000, ttl_ms=600_000)


class Instance(Recorder):
    """A recorder whose backend is known to be the Redis one."""

    backend: RedisWebSocketConnectionBackend

    async def keep(self, *payloads: bytes, keep: Retention | None = KEEP, is_keyed: bool = False) -> None:
        """Send payloads to room a, each with its text as id."""
        await self.backend.send_many(
            [Publication(["a"], payload, payload.decode(), keep, is_keyed) for payload in payloads]
        )

    async def position(self) -> StreamPosition:
        [position] = await self.backend.positions(["a"])
        assert position is not None
        return position

    async def since(self, position: StreamPosition) -> list[bytes] | None:
        """What came after it; None where it is not recovered."""
        replay = await self.backend.history("a", position, 10_000)
        assert replay.recovered or not replay.entries
        return [entry.payload for entry in replay.entries] if replay.recovered else None


@asynccontextmanager
async def started(url: str, **options: object) -> AsyncIterator[Instance]:
    settings = {"probe_interval": timedelta(milliseconds=300), **options}
    instance = Instance(RedisWebSocketConnectionBackend(conn=url, **settings))  # type: ignore[arg-type]
    await instance.start()
    try:
        yield instance
    finally:
        await instance.stop()


@asynccontextmanager
async def proxied(server: RedisServer, **options: object) -> AsyncIterator[tuple[Instance, FaultProxy]]:
    async with FaultProxy(server.port) as proxy, started(f"redis://{proxy.host}:{proxy.port}/0", **options) as one:
        yield one, proxy


async def poll(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is watched has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that has written everything down before it answers."""
    server = RedisServer(tmp_path / "durable", appendonly=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_f1_a_kill_in_a_stream_of_sends_loses_and_doubles_nothing_that_was_accepted(durable: RedisServer):
    payloads = [b"%d" % n for n in range(400)]
    async with started(durable.url) as sender, started(durable.url) as reader:
        await reader.subscribe("a")
        await sender.keep(b"first")
        start = await sender.position()
        restarting = None
        for n, payload in enumerate(payloads):
            if n == 100:
                restarting = asyncio.create_task(asyncio.to_thread(durable.restart))
            await sender.keep(payload)  # tried again until the server is back: none is refused
        assert restarting is not None
        await restarting
        await reader.until(lambda: bool(reader.gaps))
        assert await reader.since(start) == payloads
        assert (await reader.position()).offset == 401
        # What came live is a part of that, at the same places; the gap says that there may be more.
        kept = await reader.backend.history("a", start, 10_000)
        live = {entry.position.offset: entry.payload for _, entry, _ in reader.entries}
        assert live.items() <= {1: b"first", **{e.position.offset: e.payload for e in kept.entries}}.items()
        assert [offset for offset, _ in reader.kept("a")] == sorted(live)


async def test_f6_after_a_restart_with_nothing_old_places_are_not_recovered(redis_server: RedisServer):
    async with started(redis_server.url) as one:
        await one.subscribe("a")
        await one.keep(*(b"old %d" % n for n in range(5)))
        old = await one.position()
        redis_server.restart()
        assert await one.backend.positions(["a"]) == [None]
        assert await one.since(old) is None
        await one.keep(*(b"new %d" % n for n in range(7)))
        new = await one.position()
        assert new.offset == 7
        assert new.epoch != old.epoch
        for offset in range(8):  # also where the offset exists again
            assert await one.since(StreamPosition(old.epoch, offset)) is None
        assert await one.since(StreamPosition(new.epoch, 5)) == [b"new 5", b"new 6"]


async def test_f7_a_place_whose_successors_were_trimmed_is_not_recovered(redis_server: RedisServer):
    async with started(redis_server.url) as one:
        keep = Retention(size=3, ttl_ms=60_000)
        await one.keep(b"1", keep=keep)
        place = await one.position()
        await one.keep(b"2", b"3", b"4", keep=keep)
        assert await one.since(place) == [b"2", b"3", b"4"]
        await one.keep(b"5", keep=keep)
        assert await one.backend.history("a", place, 100) == Replay(place._replace(offset=5), [], False)


async def test_restarts_that_lose_nothing_keep_every_place_valid(durable: RedisServer):
    async with started(durable.url) as one:
        places: list[tuple[StreamPosition, int]] = []
        for run in range(4):
            await one.keep(*(b"%d" % n for n in range(run * 3, run * 3 + 3)))
            places.append((await one.position(), run * 3 + 3))
            durable.restart()
        assert len({place.epoch for place, _ in places}) == 4
        for place, count in places:
            assert await one.since(place) == [b"%d" % n for n in range(count, 12)]
            assert await one.since(place._replace(offset=count + 1)) is None  # never given in that epoch


async def test_the_memory_of_older_epochs_is_bounded(durable: RedisServer):
    async with started(durable.url) as one:
        places = []
        for n in range(18):
            await one.keep(b"%d" % n)
            places.append(await one.position())
            if n < 17:
                durable.restart()
        recovered = [await one.since(place) for place in places]
        assert recovered[0] is None
        assert recovered[1:] == [[b"%d" % m for m in range(n + 1, 18)] for n in range(1, 18)]


async def test_what_an_eviction_leaves_of_a_room_is_never_taken_for_its_history(redis_server: RedisServer):
    async with started(redis_server.url) as one, Redis.from_url(redis_server.url) as client:
        await one.keep(b"1", b"2", b"3")
        old = await one.position()
        assert await client.delete("jararaca:websocket:meta:{a}")
        assert await one.since(old) is None
        await one.keep(b"new")
        replay = await one.backend.history("a", None, 100)
        assert [(entry.position.offset, entry.payload) for entry in replay.entries] == [(1, b"new")]
        assert await client.delete("jararaca:websocket:entries:{a}")
        assert await one.since(replay.position) == []
        assert await one.since(replay.position._replace(offset=0)) is None
        await one.keep(b"newer")
        assert await one.since(replay.position) == [b"newer"]


async def test_f11_writes_that_were_accepted_and_lost_are_told_from_those_that_were_kept(durable: RedisServer):
    """What a replica that takes over without the last writes does; here a server that comes back with an older disk."""
    directory = durable.directory
    async with started(durable.url) as one:
        await one.keep(*(b"%d" % n for n in range(1, 9)))
        survived = await one.position()
        shutil.copytree(directory / "appendonlydir", directory / "older")
        await one.keep(b"9", b"10")
        lost = await one.position()
        durable.kill()
        shutil.rmtree(directory / "appendonlydir")
        (directory / "older").rename(directory / "appendonlydir")
        durable.start()
        # Nothing new yet: who has seen more than the server has is told so.
        assert await one.since(lost) is None
        assert await one.since(survived) == []
        await one.keep(b"9 again", b"10 again", b"11")
        assert await one.since(survived) == [b"9 again", b"10 again", b"11"]
        assert await one.since(survived._replace(offset=6)) == [b"7", b"8", b"9 again", b"10 again", b"11"]
        assert await one.since(survived._replace(offset=9)) is None
        assert await one.since(lost) is None, "it is not the 10 that is there now"


# --- second tries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "is_keyed"),
    [(KEEP, False), (KEEP, True), (None, True), (None, False)],
    ids=["kept", "both", "keyed", "bare"],
)
async def test_f14_a_publish_whose_reply_is_lost_arrives_once(
    redis_server: RedisServer, keep: Retention | None, is_keyed: bool
):
    async with started(redis_server.url) as reader, proxied(redis_server) as (one, proxy):
        await reader.subscribe("a")
        await one.keep(b"before", keep=keep)
        proxy.drop_replies()
        sending = asyncio.create_task(one.keep(b"x", b"y", keep=keep, is_keyed=is_keyed))
        await reader.until(lambda: b"y" in _arrived(reader))  # done, and the sender cannot know
        assert not sending.done()
        proxy.heal()
        await sending
        assert proxy.lost_replies >= 1
        await one.keep(b"after", keep=keep)
        await reader.until(lambda: b"after" in _arrived(reader))
        assert _arrived(reader) == [b"before", b"x", b"y", b"after"]


def _arrived(reader: Recorder) -> list[bytes]:
    return reader.messages + [payload for _, payload in reader.kept("a")]


async def test_f14_a_broadcast_whose_reply_is_lost_arrives_once(redis_server: RedisServer):
    async with started(redis_server.url) as reader, proxied(redis_server) as (one, proxy):
        await one.backend.broadcast(b"before")
        proxy.drop_replies()
        sending = asyncio.create_task(one.backend.broadcast(b"x"))
        await reader.until(lambda: b"x" in reader.broadcasts)
        proxy.heal()
        await sending
        await one.backend.broadcast(b"after")
        await reader.until(lambda: b"after" in reader.broadcasts)
        assert reader.broadcasts == [b"before", b"x", b"after"]


async def test_what_two_instances_keep_while_their_connections_break_is_there_once_and_in_order(
    redis_server: RedisServer,
):
    async with (
        started(redis_server.url) as reader,
        proxied(redis_server) as (one, its),
        proxied(redis_server) as (
            two,
            other,
        ),
    ):

        async def stream(sender: Instance, name: bytes) -> int:
            for n in count():
                await sender.keep(b"%s %d" % (name, n))
                if its.accepted + other.accepted > 20:
                    break
            return n + 1

        streams = asyncio.gather(stream(one, b"one"), stream(two, b"two"))
        while not streams.done():
            for proxy in (its, other):
                proxy.reset()
            await asyncio.sleep(0.02)
        sent = await streams
        replay = await reader.backend.history("a", None, 10_000)
        assert [entry.position.offset for entry in replay.entries] == list(range(1, sum(sent) + 1))
        for name, number in zip((b"one", b"two"), sent, strict=True):
            mine = [entry.payload for entry in replay.entries if entry.payload.startswith(name)]
            assert mine == [b"%s %d" % (name, n) for n in range(number)]


async def test_what_waits_for_redis_to_come_back_keeps_its_order(redis_server: RedisServer):
    async with started(redis_server.url) as one:
        await one.keep(b"first")
        redis_server.kill()
        sends = []
        for n in range(60):
            sends.append(asyncio.create_task(one.keep(b"%d" % n)))
            await asyncio.sleep(0.005)  # so that some wait for their second try while others come
        redis_server.start()
        await asyncio.gather(*sends)
        replay = await one.backend.history("a", None, 10_000)
        assert [entry.payload for entry in replay.entries] == [b"%d" % n for n in range(60)]


async def test_a_connection_that_died_silently_is_given_up_in_time_for_a_second_try(redis_server: RedisServer):
    async with proxied(redis_server, publish_timeout=timedelta(seconds=1)) as (one, proxy):
        await one.keep(b"1")
        proxy.blackhole()
        sending = asyncio.create_task(one.keep(b"2"))
        await asyncio.sleep(0.3)
        proxy.cut()
        proxy.heal()
        await sending


async def test_what_is_tried_for_too_long_is_refused_and_harms_nothing_after_it(redis_server: RedisServer):
    async with started(redis_server.url, publish_timeout=timedelta(seconds=1)) as one:
        await one.keep(b"1")
        redis_server.kill()
        refused = await asyncio.gather(*(one.keep(b"lost %d" % n) for n in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in refused} == {BackendUnavailable}
        redis_server.start()
        await one.keep(b"2")
        assert [entry.payload for entry in (await one.backend.history("a", None, 100)).entries] == [b"2"]


async def test_a_forgotten_script_is_sent_again(redis_server: RedisServer):
    async with started(redis_server.url) as one, Redis.from_url(redis_server.url) as client:
        await one.keep(b"1")
        for n in range(2, 5):
            await client.script_flush()
            await one.keep(b"%d" % n)
        assert await one.since((await one.position())._replace(offset=0)) == [b"1", b"2", b"3", b"4"]


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_f8_out_of_memory_is_the_callers_error_and_pub_sub_goes_on(redis_server: RedisServer):
    async with started(redis_server.url) as one, Redis.from_url(redis_server.url) as client:
        await one.subscribe("a")
        await one.keep(b"fits")
        await poll(lambda: one.backend.healthy)
        await client.config_set("maxmemory", 1)
        with pytest.raises(BackendUnavailable, match="maxmemory"):
            await one.keep(b"kept")
        with pytest.raises(BackendUnavailable, match="maxmemory"):
            await one.keep(b"keyed", keep=None, is_keyed=True)
        assert not one.backend.healthy
        assert one.backend.health()[0].reason == "it is out of memory"
        await one.keep(b"loose", keep=None)
        await one.until(lambda: one.messages == [b"loose"])
        await client.config_set("maxmemory", 0)
        await one.keep(b"kept")  # nothing of the first try was left behind
        assert [entry.payload for entry in (await one.backend.history("a", None, 9)).entries] == [b"fits", b"kept"]


async def test_f9_a_server_that_became_a_replica_is_asked_again_until_it_is_none(redis_server: RedisServer):
    async with started(redis_server.url) as one, Redis.from_url(redis_server.url) as client:
        await one.keep(b"1")
        await client.replicaof("127.0.0.1", 1)
        sending = asyncio.create_task(one.keep(b"2"))
        async with asyncio.timeout(10):
            while not (await client.info("errorstats")).get("errorstat_READONLY"):  # noqa: ASYNC110  # Redis knows
                await asyncio.sleep(0.01)
        assert not sending.done()
        await client.replicaof("no", "one")
        await sending
        assert (await one.position()).offset == 2


async def test_f9_a_server_that_loads_its_data_is_asked_again_until_it_has(durable: RedisServer):
    async with started(durable.url) as one:
        await one.keep(b"1")
        async with Redis.from_url(durable.url) as client:
            await client.mset({f"ballast:{n}": n for n in range(300)})
            await client.bgrewriteaof()
            async with asyncio.timeout(10):
                while (await client.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110  # Redis knows
                    await asyncio.sleep(0.01)
        durable.kill()
        # Microseconds for each key; and it looks at its clients in between.
        durable.extra_args = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
        restarting = asyncio.create_task(asyncio.to_thread(durable.start))
        await one.keep(b"2")
        await restarting
        async with Redis.from_url(durable.url) as client:
            assert "errorstat_LOADING" in await client.info("errorstats")
        assert (await one.position()).offset == 2
