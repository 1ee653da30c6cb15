"""A Redis that is there and does not do all that it should: full, refusing, loading, a replica, out of patience."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.wire.publications import encode_publication
from tests.faults.test_redis import PROBE, accepted, admin, make, poll, started
from tests.servers import RedisServer

pytestmark = pytest.mark.redis

CHANNEL = "jararaca:websocket:send:a"


async def test_f8_a_redis_that_is_out_of_memory_carries_messages_all_the_same(redis_server: RedisServer):
    """Pub/sub keeps nothing: what Redis refuses then is what it would have to keep."""
    backend = make(redis_server)
    async with started(backend) as one, admin(redis_server) as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(Exception, match="maxmemory"):
            await client.set("key", "value")
        await one.subscribe("a")
        await one.backend.send(["a"], b"1")
        await one.until(lambda: one.messages == [b"1"])
        await poll(lambda: backend.healthy)
        assert one.gaps == []


async def test_f8_a_refused_publish_is_an_error_to_the_caller_and_receiving_goes_on(redis_server: RedisServer):
    async with admin(redis_server) as client:
        await client.execute_command("ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all")
        url = f"redis://app:any@127.0.0.1:{redis_server.port}/0"
        backend = RedisWebSocketConnectionBackend(url, probe_interval=PROBE)
        async with started(backend) as one:
            await one.subscribe("a")
            await poll(lambda: backend.healthy)
            await client.execute_command("ACL", "SETUSER", "app", "-publish")
            with pytest.raises(BackendUnavailable, match="permission"):
                await one.backend.send(["a"], b"refused")
            await poll(lambda: not backend.healthy)
            assert backend.health()[0].reason == "it does not answer, or refuses what is published"
            await client.publish(CHANNEL, encode_publication("id", ["a"], b"of another"))
            await one.until(lambda: one.messages == [b"of another"])
            await client.execute_command("ACL", "SETUSER", "app", "+publish")
            await poll(lambda: backend.healthy)
            await one.backend.send(["a"], b"taken")
            await one.until(lambda: one.messages == [b"of another", b"taken"])
            assert one.gaps == []  # nothing was missed


async def test_f9_a_redis_that_is_loading_is_no_reason_to_stay_away(tmp_path: Path):
    slowly = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    server = RedisServer(tmp_path / "redis", extra_args=slowly)
    server.start()
    try:
        async with started(make(server)) as one:
            await one.subscribe("a")
            async with admin(server) as client:
                await client.mset({f"key {n}": "x" * 1000 for n in range(2000)})
                await client.save()
            server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))  # until it has loaded: two seconds
            await one.until(lambda: bool(one.gaps))
            await accepted(one, "a", b"while it loads")
            await one.until(lambda: one.messages == [b"while it loads"])
            async with admin(server) as client:
                assert (await client.info("persistence"))["loading"] == 1
            await starting
    finally:
        server.stop()


async def test_f9_a_redis_that_has_become_a_replica_is_not_fatal(redis_server: RedisServer):
    backend = make(redis_server)
    async with started(backend) as one, admin(redis_server) as client:
        await one.subscribe("a")
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Exception, match="read only replica"):
            await client.set("key", "value")
        await accepted(one, "a", b"1")
        await one.until(lambda: one.messages == [b"1"])
        await poll(lambda: backend.healthy)
        await client.execute_command("REPLICAOF", "NO", "ONE")
        await accepted(one, "a", b"2")
        await one.until(lambda: one.messages == [b"1", b"2"])


async def test_f10_a_subscriber_that_redis_gives_up_on_reports_a_gap(redis_server: RedisServer):
    """The reader waits on nothing but Redis, so it takes an event loop that stands still."""
    async with admin(redis_server) as client:
        await client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
        async with started(make(redis_server)) as one:
            await one.subscribe("a")
            with BlockingRedis.from_url(redis_server.url) as other:  # in this thread: the loop stands still
                while other.publish(CHANNEL, encode_publication("id", ["a"], b"x" * 100_000)):
                    pass
            await one.until(lambda: bool(one.gaps))
            await accepted(one, "a", b"after")
            await one.until(lambda: b"after" in one.messages)
            assert one.gaps == [(["a"], True)]


async def test_f46_what_another_version_publishes_is_skipped_and_counted(redis_server: RedisServer):
    backend = make(redis_server)
    ours = [encode_publication(f"id-{n}", ["a"], b"ours") for n in range(4)]
    theirs = b'2{"new":"header"}\ntheirs'
    async with started(backend) as one, admin(redis_server) as client:
        await one.subscribe("a")
        for channel in (CHANNEL, "jararaca:websocket:broadcast"):
            for payload in (theirs, ours.pop(), theirs, ours.pop()):
                await client.publish(channel, payload)
        await one.settled()
        assert one.messages == [b"ours"] * 2
        assert one.broadcasts[:2] == [b"ours"] * 2
        assert backend.dropped == 4
        assert one.gaps == []
