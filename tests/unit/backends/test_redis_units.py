"""What of the Redis backend needs no fault: configuration, batching, and what a third party publishes (F47)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import ConnectionPool, Redis
from redis.crc import key_slot

from jararaca_ws.backends.base import (
    BatchingBackend,
    GapReportingBackend,
    HistoryBackend,
    Publication,
    Retention,
    StartableBackend,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.backends.redis_keys import Keys, escaped
from jararaca_ws.errors import BackendUnavailable, ConfigurationError
from jararaca_ws.health import Health
from jararaca_ws.testing.recorder import AWKWARD_ROOMS, Recorder
from jararaca_ws.wire.publications import encode_publication
from tests.unit.played import until

PREFIX = b"jararaca:websocket:send:"
BROADCAST = b"jararaca:websocket:broadcast"


@asynccontextmanager
async def started(server: fakeredis.FakeServer | None = None, **options: Any) -> AsyncIterator[Recorder]:
    conn = fakeredis.FakeAsyncRedis(server=server or fakeredis.FakeServer())
    recorder = Recorder(RedisWebSocketConnectionBackend(conn=conn, **{"unsubscribe_linger": timedelta(0), **options}))
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()
        await conn.aclose()


def redis_of(recorder: Recorder) -> RedisWebSocketConnectionBackend:
    assert isinstance(recorder.backend, RedisWebSocketConnectionBackend)
    return recorder.backend


class TestConfiguration:
    def test_it_is_made_as_in_the_seed_document_and_can_do_everything(self):
        backend = RedisWebSocketConnectionBackend(
            send_pubsub_channel="jararaca:websocket:send",
            broadcast_pubsub_channel="jararaca:websocket:broadcast",
            conn=Redis.from_url("redis://localhost", decode_responses=False),
        )
        for protocol in (
            WebSocketConnectionBackend,
            StartableBackend,
            SubscribingBackend,
            BatchingBackend,
            GapReportingBackend,
            HistoryBackend,
        ):
            assert isinstance(backend, protocol)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "http://:s3cret@localhost",
            "redis://:s3cret@localhost:port",
            "redis://:s3cret@[localhost",
            "redis://:s3cret#x@localhost:6379",
            "redis://user:s3cret/x@localhost:6379",
            "redis://user:s3cret?x@localhost:6379",
            "redis://:s3cret@localhost:99999",
        ],
    )
    def test_a_wrong_url_is_refused_at_once_without_its_password(self, url: str):
        with pytest.raises(ConfigurationError, match="redis://") as caught:
            RedisWebSocketConnectionBackend(url)
        assert "s3cret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize("conn", [None, 7, object(), ConnectionPool()], ids=lambda conn: type(conn).__name__)
    def test_what_is_no_client_is_refused_with_a_cure(self, conn: Any):
        with pytest.raises(ConfigurationError, match=r"redis\.asyncio\.Redis client"):
            RedisWebSocketConnectionBackend(conn)

    def test_a_synchronous_client_is_refused(self):
        import redis

        with pytest.raises(ConfigurationError, match=r"conn is a redis\.client\.Redis"):
            RedisWebSocketConnectionBackend(redis.Redis())  # type: ignore[arg-type]

    @pytest.mark.parametrize(("send", "broadcast"), [("", "b"), ("s", ""), ("s", "s:x"), ("s", "s:")])
    def test_redis_channels_that_a_room_could_be_taken_for_are_refused(self, send: str, broadcast: str):
        with pytest.raises(ConfigurationError, match="clash"):
            RedisWebSocketConnectionBackend("redis://localhost", send, broadcast)

    @pytest.mark.parametrize("options", [{"prefix": "{a}"}, {"prefix": "a}"}, {"send_pubsub_channel": "{"}])
    def test_a_prefix_with_braces_is_refused(self, options: dict[str, str]):
        with pytest.raises(ConfigurationError, match="braces"):
            RedisWebSocketConnectionBackend("redis://localhost", **options)

    @pytest.mark.parametrize(("send", "broadcast"), [("s", "s"), ("s", "sx"), ("a:b", "a")])
    def test_redis_channels_that_differ_are_fine(self, send: str, broadcast: str):
        assert RedisWebSocketConnectionBackend("redis://localhost", send, broadcast).lag_s is None

    @pytest.mark.parametrize(
        ("options", "channel", "key"),
        [
            ({}, b"jararaca:websocket:send:a", b"jararaca:websocket:meta:{a}"),
            ({"prefix": "shop"}, b"shop:send:a", b"shop:meta:{a}"),
            ({"send_pubsub_channel": "shop:to"}, b"shop:to:a", b"shop:to:meta:{a}"),
            ({"prefix": "shop", "send_pubsub_channel": "to"}, b"to:a", b"shop:meta:{a}"),
        ],
    )
    async def test_keys_and_redis_channels_follow_the_prefix(self, options: dict[str, str], channel: bytes, key: bytes):
        server = fakeredis.FakeServer()
        async with started(server, **options) as it, fakeredis.FakeAsyncRedis(server=server) as other:
            await it.subscribe("a")
            await redis_of(it).send_many([Publication(["a"], b"1", "id", Retention(1, 1000))])
            assert channel in await other.pubsub_channels()
            assert key in await other.keys()

    async def test_no_server_is_an_error_of_the_start_and_leaves_no_task(self):
        before = asyncio.all_tasks()
        recorder = Recorder(RedisWebSocketConnectionBackend("redis://:s3cret@127.0.0.1:1/0"))
        with pytest.raises(BackendUnavailable) as caught:
            await recorder.start()
        await recorder.stop()
        assert "s3cret" not in str(caught.value)
        assert asyncio.all_tasks() == before

    async def test_before_the_start_nothing_is_taken(self):
        backend = RedisWebSocketConnectionBackend("redis://localhost")
        with pytest.raises(BackendUnavailable, match="not running"):
            await backend.send(["a"], b"1")
        with pytest.raises(BackendUnavailable, match="not running"):
            await backend.broadcast(b"1")


class TestKeys:
    @pytest.mark.parametrize("room", [*AWKWARD_ROOMS, "a", "{a}b", "a{b", "a}b", "{}a", "%7B", "x" * 255])
    def test_the_hash_tag_is_the_whole_room(self, room: str):
        keys = Keys("prefix")
        names = [keys.entries(room), keys.meta(room), keys.sent(room, "{id}")]
        assert len(set(names)) == 3
        assert {key_slot(name) for name in names} == {key_slot(escaped(room).encode())}

    @given(st.text(), st.text())
    def test_different_rooms_have_different_keys(self, one: str, two: str):
        assert (escaped(one) == escaped(two)) == (one == two)


class TestPublishing:
    async def test_what_is_published_in_one_tick_leaves_in_one_pipeline(self):
        async with started() as it:
            await it.subscribe("a", "b")
            await it.backend.send(["a"], b"warm")
            before = redis_of(it).pipelines
            await asyncio.gather(*(it.backend.send(["ab"[n % 2]], b"%d" % n) for n in range(200)))
            assert redis_of(it).pipelines - before <= 2, "the watchdog may have had one of its own"
            await it.until(lambda: len(it.sent) >= 201)
            assert it.messages == [b"warm"] + [b"%d" % n for n in range(200)]

    async def test_too_much_that_waits_is_refused_at_once(self):
        async with started(max_pending_bytes=1000) as it:
            sends = [asyncio.create_task(it.backend.send(["a"], b"x" * 400)) for _ in range(5)]
            done = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(one) for one in done] == [type(None)] * 2 + [BackendUnavailable] * 3
            assert "max_pending_bytes" in str(done[-1])
            await it.backend.send(["a"], b"x" * 400)

    async def test_a_payload_larger_than_the_bound_passes_alone(self):
        async with started(max_pending_bytes=1000) as it:
            await it.subscribe("a")
            await it.backend.send(["a"], b"x" * 5000)
            await it.until(lambda: bool(it.sent))

    async def test_cancelling_a_send_harms_no_other(self):
        async with started() as it:
            await it.subscribe("a")
            sends = [asyncio.create_task(it.backend.send(["a"], b"%d" % n)) for n in range(10)]
            await asyncio.sleep(0)
            sends[3].cancel()
            done = await asyncio.gather(*sends, return_exceptions=True)
            assert [n for n, one in enumerate(done) if one is not None] == [3]
            await it.backend.send(["a"], b"last")
            await it.until(lambda: b"last" in it.messages)
            assert {b"%d" % n for n in range(10) if n != 3} <= set(it.messages)

    async def test_a_room_is_one_redis_channel_with_its_literal_name(self):
        server = fakeredis.FakeServer()
        rooms = ["a,b", "*", "größe", "a:b"]
        async with started(server) as it, fakeredis.FakeAsyncRedis(server=server) as other:
            await it.subscribe(*rooms)
            channels = await other.pubsub_channels()
            [probe] = set(channels) - {PREFIX + room.encode() for room in rooms} - {BROADCAST}
            it.backend.unsubscribe(rooms)  # type: ignore[attr-defined]
            await it.subscribe("mark")
            assert [one for one in await other.pubsub_channels() if one not in (BROADCAST, probe)] == [PREFIX + b"mark"]


class TestReceiving:
    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"garbage",
            b"\x80\x04\x95.",
            b"1",
            b"2\n{}",
            b"1[1]\n{}",
            b'1["x"]\n',
            b'1"x\n',
            b'1["x",["a"],"e",0]\n',
            b"\x00" * 100_000,
        ],
    )
    async def test_f47_garbage_of_a_third_party_is_dropped_and_counted_and_the_reader_lives(self, payload: bytes):
        server = fakeredis.FakeServer()
        async with started(server) as it, fakeredis.FakeAsyncRedis(server=server) as other:
            await it.subscribe("a")
            for channel in (PREFIX + b"a", BROADCAST):
                await other.publish(channel, payload)
            await it.backend.send(["a"], b'"alive"')
            await it.until(lambda: bool(it.sent))
            assert it.messages == [b'"alive"']
            assert it.broadcasts == []
            assert redis_of(it).dropped == 2
            assert redis_of(it)._subscriber.restarts == 0

    async def test_a_flood_of_garbage_is_not_a_flood_in_the_log(self, caplog: pytest.LogCaptureFixture):
        server = fakeredis.FakeServer()
        async with started(server) as it, fakeredis.FakeAsyncRedis(server=server) as other:
            async with other.pipeline(transaction=False) as pipeline:
                for _ in range(1500):
                    pipeline.publish(BROADCAST, "a\r\nforged")
                await pipeline.execute()
            await it.settled()
            assert redis_of(it).dropped == 1500
        dropped = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
        assert len(dropped) == 2
        assert all(line.isprintable() and "forged" not in line for line in dropped)

    async def test_copies_of_one_send_are_handed_over_once_even_a_third_partys(self):
        server = fakeredis.FakeServer()
        payload = encode_publication("id", ["a", "b"], b'"both"')
        async with started(server) as it, fakeredis.FakeAsyncRedis(server=server) as other:
            await it.subscribe("a", "b")
            for room in (b"a", b"b", b"a"):
                await other.publish(PREFIX + room, payload)
            await it.settled()
            assert it.sent == [(("a", "b"), b'"both"')]

    async def test_what_it_remembers_of_sends_to_several_rooms_is_bounded(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("jararaca_ws.backends.redis_receiver._REMEMBERED", 10)
        async with started() as it:
            await it.subscribe("a", "b")
            for n in range(50):
                await it.backend.send(["a", "b"], b"%d" % n)
            await it.until(lambda: len(it.sent) >= 50)
            await it.settled()
            assert it.messages == [b"%d" % n for n in range(50)]
            assert len(redis_of(it)._receiver._handed_over) <= 20

    async def test_it_becomes_healthy_and_measures_its_lag(self):
        async with started() as it:
            await until(lambda: redis_of(it).healthy)
            lag = redis_of(it).lag_s
            assert lag is not None
            assert 0 < lag < 5
            assert it.gaps == [], "the first connection loses nothing"
        assert not redis_of(it).healthy

    async def test_f48_a_background_task_that_dies_is_not_healthy_until_it_runs_again(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        async with started() as it:
            backend = redis_of(it)
            await until(lambda: backend.healthy)
            with monkeypatch.context() as patch:
                patch.setattr(backend._publisher, "_write", None)
                with pytest.raises(BackendUnavailable):
                    await backend.send(["a"], b"x")
                await until(lambda: not backend._publisher.healthy)
                (health,) = backend.health()
                assert not health.healthy
                assert health.reason
            await until(lambda: backend.health()[0] == Health(name="redis"))

    async def test_applications_with_channels_of_their_own_do_not_hear_each_other(self):
        server = fakeredis.FakeServer()
        own = {"send_pubsub_channel": "other:send", "broadcast_pubsub_channel": "other:all"}
        async with started(server) as one, started(server, **own) as two:
            for it in (one, two):
                await it.subscribe("a")
            await one.backend.send(["a"], b"1")
            await one.backend.broadcast(b"2")
            await one.settled()
            await two.settled()
            assert (two.sent, len(two.broadcasts)) == ([], 1)
