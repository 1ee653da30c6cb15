"""Presence on every kind of backend that keeps it: who is on one instance, watched and asked for on another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from jararaca_ws.backends.memory_presence import MemoryPresence
from jararaca_ws.backends.presence import PresenceStore
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable, BadRoom
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.presence import PresenceSettings
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from tests.contract.conftest import REDIS, on_redis
from tests.servers import RedisServer
from tests.unit.clusters import Cluster, HubBackend, MakeBackend, cluster
from tests.unit.played import Socket, turns, until

Started = Callable[..., AbstractAsyncContextManager[Cluster]]
MS = timedelta(milliseconds=1)
QUICK = PresenceSettings(ttl=3000 * MS, grace=100 * MS, window=10 * MS)


class PresentHub(HubBackend):
    """A hub whose instances share the memory backend's presence too."""

    def __init__(self, hub: list[HubBackend], shared: MemoryPresence) -> None:
        super().__init__(hub)
        self.shared = shared

    def presence_store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> PresenceStore:
        return self.shared.store(instance_id, ttl_ms=ttl_ms, grace_ms=grace_ms)


@pytest.fixture(params=["memory", *REDIS])
def make(request: pytest.FixtureRequest) -> MakeBackend:
    if request.param == "memory":
        hub: list[HubBackend] = []
        shared = MemoryPresence()
        return lambda: PresentHub(hub, shared)
    return on_redis(request)


@pytest.fixture
def two(make: MakeBackend) -> Started:
    @asynccontextmanager
    async def started(
        presence: PresenceSettings = QUICK, settings: WebSocketSettings | None = None
    ) -> AsyncIterator[Cluster]:
        managers = [WebSocketConnectionManager(make(), presence=presence, settings=settings) for _ in range(2)]
        async with cluster(*managers) as instances:
            yield instances

    return started


def told(socket: Socket) -> list[dict[str, Any]]:
    """What `jararaca.presence` said, without what is empty."""
    messages = [json.loads(frame) for frame in socket.server.frames]
    assert {message["MESSAGE_ID"] for message in messages} <= {"jararaca.presence"}
    return [{key: value for key, value in each["message"].items() if value != []} for each in messages]


def user(name: str, **metadata: Any) -> dict[str, Any]:
    return {"identity": f"user:{name}", "user_id": name, "metadata": metadata}


def diff(count: int, **fields: Any) -> dict[str, Any]:
    return {"room": "a", "kind": "diff", "count": count, **fields}


def state(*present: dict[str, Any]) -> dict[str, Any]:
    return {"room": "a", "kind": "state", "count": len(present), **({"joined": list(present)} if present else {})}


async def watching(instances: Cluster, *rooms: str, instance: int = 1) -> Socket:
    """A socket that is in no room, and has been told who is in room a."""
    watcher = await instances.socket(instance, *rooms, v1=True)
    await watcher.connection.watch_presence("a")
    await until(lambda: told(watcher))
    return watcher


async def present(manager: WebSocketConnectionManager, room: str = "a") -> list[str | None]:
    return sorted((entry.user_id for entry in await manager.presence(room)), key=str)


async def eventually(expected: list[str | None], manager: WebSocketConnectionManager) -> None:
    async with asyncio.timeout(10):
        while await present(manager) != expected:  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.005)


async def test_all_connections_of_all_instances_are_listed(two: Started):
    async with two() as instances:
        ana = await instances.socket(0, "a", user="ana")
        await ana.connection.set_metadata({"colour": "red"})
        tab = await instances.socket(1, "a", "b", user="ana")
        anonymous = await instances.socket(1, "a")
        await instances.socket(1, "b", user="bob")
        await instances.managers[1].presence("b")  # what the other instance did is written by now
        entries = {entry.connection_id: entry for entry in await instances.managers[0].presence("a")}
        ids = [manager.instance_id for manager in instances.managers]
        assert {id: entry[1:] for id, entry in entries.items()} == {
            ana.connection.id: (ids[0], "ana", {"colour": "red"}),
            tab.connection.id: (ids[1], "ana", {}),
            anonymous.connection.id: (ids[1], None, {}),
        }
        assert entries[anonymous.connection.id].identity == f"connection:{anonymous.connection.id}"
        assert await instances.managers[1].presence("nobody") == []


async def test_an_instance_sees_at_once_what_it_did(two: Started):
    async with two() as instances:
        manager = instances.managers[0]
        for n in range(5):
            socket = await instances.socket(0, "a", user=f"u{n}")
            assert await present(manager) == [f"u{n}"]
            await socket.connection.leave("a")
            assert await present(manager) == []


async def test_a_closed_connection_is_not_listed(two: Started):
    async with two() as instances:
        ana = await instances.socket(0, "a", user="ana")
        await eventually(["ana"], instances.managers[1])
        ana.server.disconnect()
        await eventually([], instances.managers[1])


async def test_a_watcher_is_told_all_and_then_what_changes(two: Started):
    async with two() as instances:
        ana = await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        await instances.socket(1, "a", user="bob")
        await until(lambda: len(told(watcher)) == 2)
        await ana.connection.leave("a")
        await until(lambda: len(told(watcher)) == 3)
        assert told(watcher) == [
            state(user("ana")),
            diff(2, joined=[user("bob")]),
            diff(1, left=["user:ana"]),
        ]
        assert watcher.connection.rooms == ()


async def test_two_tabs_are_one_join_and_one_leave(two: Started):
    async with two() as instances:
        watcher = await watching(instances)
        tabs = [await instances.socket(n, "a", user="ana") for n in (0, 1, 0)]
        for manager in instances.managers:
            await manager.presence("a")
        await until(lambda: len(told(watcher)) == 2)
        for tab in tabs:
            await tab.connection.close()
        await until(lambda: len(told(watcher)) == 3)
        assert told(watcher) == [state(), diff(1, joined=[user("ana")]), diff(0, left=["user:ana"])]


async def test_coming_back_within_the_grace_period_is_not_told(two: Started):
    async with two(PresenceSettings(ttl=3000 * MS, grace=60_000 * MS, window=10 * MS)) as instances:
        ana = await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        for n in (1, 0, 1):
            await ana.connection.close()
            await eventually([], instances.managers[n])  # nobody is there
            ana = await instances.socket(n, "a", user="ana")
            await eventually(["ana"], instances.managers[1])
        await instances.socket(0, "a", user="last")
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher) == [state(user("ana")), diff(2, joined=[user("last")])]


async def test_above_the_threshold_only_the_count_is_told(two: Started):
    settings = PresenceSettings(ttl=3000 * MS, grace=0 * MS, window=10 * MS, threshold=2)
    async with two(settings) as instances:
        people = [await instances.socket(0, "a", user=name) for name in ("ana", "bob")]
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        people.append(await instances.socket(1, "a", user="cleo"))
        await until(lambda: len(told(watcher)) == 2)
        late = await watching(instances)
        people.append(await instances.socket(0, "a", user="dan"))
        await until(lambda: len(told(watcher)) == 3)
        for gone in people[:2]:
            await gone.connection.leave("a")
        await until(lambda: told(watcher)[-1]["kind"] == "state")
        await until(lambda: told(late)[-1]["kind"] == "state")
        counts = [update for update in told(watcher) if update["kind"] == "count"]
        assert counts[:2] == [{"room": "a", "kind": "count", "count": 3}, {"room": "a", "kind": "count", "count": 4}]
        assert told(watcher)[-1] == state(user("cleo"), user("dan"))
        assert told(late)[0] == counts[0]


async def test_changed_metadata_is_told_as_an_update(two: Started):
    async with two() as instances:
        ana = await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        await ana.connection.set_metadata({"state": "away"})
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher)[1] == diff(1, updated=[user("ana", state="away")])


async def test_metadata_set_before_the_join_is_there_with_it(two: Started):
    async with two() as instances:
        socket = await instances.socket(0)
        await socket.connection.set_metadata({"n": 1})
        await socket.connection.join("a")
        assert [entry.metadata for entry in await instances.managers[0].presence("a")] == [{"n": 1}]


async def test_who_identifies_itself_later_becomes_another(two: Started):
    async with two() as instances:
        socket = await instances.socket(0, "a")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        await socket.connection.identify("ana")
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher)[1] == diff(1, joined=[user("ana")], left=[f"connection:{socket.connection.id}"])


async def test_a_lost_nudge_heals(two: Started):
    async with two(PresenceSettings(ttl=400 * MS, grace=100 * MS, window=10 * MS)) as instances:
        watcher = await watching(instances)

        async def lost(*_: Any) -> None: ...

        instances.managers[0].tracker._command = lost
        await instances.socket(0, "a", user="ana")
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher)[1] == diff(1, joined=[user("ana")])


async def test_many_changes_in_a_window_are_told_at_once(two: Started):
    async with two(PresenceSettings(ttl=30_000 * MS, grace=100 * MS, window=500 * MS)) as instances:
        watcher = await watching(instances)
        for n in range(20):
            await instances.socket(n % 2, "a", user=f"u{n:02}")
        await until(lambda: told(watcher)[-1]["count"] == 20)
        assert len(told(watcher)) <= 4, "windows, not joins"
        joined = [each["user_id"] for update in told(watcher) for each in update.get("joined", ())]
        assert joined == sorted(joined)
        assert len(joined) == 20


async def test_watchers_that_go_leave_nothing_behind(two: Started):
    async with two() as instances:
        closed = await watching(instances, "b")
        stopped = await watching(instances)
        manager = instances.managers[1]
        assert list(manager.tracker._watchers.rooms) == ["a"]
        closed.server.disconnect()
        await closed.ended()
        assert list(manager.tracker._watchers.rooms) == ["a"]
        await stopped.connection.unwatch_presence("a")
        await stopped.connection.unwatch_presence("a")
        assert list(manager.tracker._watchers.rooms) == []
        assert manager.tracker._watchers.next_at is None
        assert list(manager.delivery.rooms) == []
        await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        await turns()
        assert told(stopped) == [state()]


async def test_watching_again_has_it_told_again(two: Started):
    async with two() as instances:
        await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        await watcher.connection.watch_presence("a")
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher) == [state(user("ana"))] * 2


async def test_a_client_without_the_subprotocol_is_told_nothing(two: Started):
    async with two() as instances:
        plain = await instances.socket(1)
        await plain.connection.watch_presence("a")
        assert list(instances.managers[1].delivery.rooms) == []
        watcher = await watching(instances)
        await instances.socket(0, "a", user="ana")
        await until(lambda: len(told(watcher)) == 2)
        assert plain.server.frames == []


async def test_rooms_of_our_own_have_no_presence(two: Started):
    async with two() as instances:
        watcher = await watching(instances, "b")
        await watcher.connection.identify("ana")
        await instances.managers[1].presence("b")
        assert list(instances.managers[1].tracker._members.rooms) == ["b"]
        assert watcher.connection.rooms == ("b",)
        assert list(instances.managers[1].rooms) == ["b"]
        with pytest.raises(BadRoom):
            await instances.managers[1].presence("\x01user:ana")
        with pytest.raises(BadRoom):
            await watcher.connection.watch_presence("\x01presence:a")


async def test_a_state_too_large_for_the_outbound_queue_is_told_as_a_count(two: Started):
    async with two(settings=WebSocketSettings(max_queue_bytes=2000)) as instances:
        for n in range(6):
            socket = await instances.socket(0, "a", user=f"u{n}")
            await socket.connection.set_metadata({"x": "x" * 400})
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        assert told(watcher) == [{"room": "a", "kind": "count", "count": 6}]
        assert watcher.connection.alive


async def test_an_instance_that_stops_leaves_its_members_for_the_grace_period(make: MakeBackend):
    settings = PresenceSettings(ttl=60_000 * MS, grace=300 * MS, window=10 * MS)
    async with cluster(WebSocketConnectionManager(make(), presence=settings)) as staying:
        watcher = None
        async with cluster(WebSocketConnectionManager(make(), presence=settings)) as going:
            await going.socket(0, "a", user="ana")
            await going.managers[0].presence("a")
            watcher = await watching(staying, instance=0)
        assert await present(staying.managers[0]) == []
        assert told(watcher) == [state(user("ana"))]
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher)[1] == diff(0, left=["user:ana"])


async def test_a_dead_instance_goes_within_the_ttl(two: Started):
    async with two(PresenceSettings(ttl=300 * MS, grace=60_000 * MS, window=10 * MS)) as instances:
        await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        watcher = await watching(instances)
        await instances.managers[0].tracker._task.stop()  # as if killed: nothing is said any more
        await eventually([], instances.managers[1])
        await until(lambda: len(told(watcher)) == 2)
        assert told(watcher) == [state(user("ana")), diff(0, left=["user:ana"])]


async def test_an_instance_that_was_frozen_for_too_long_writes_its_members_again(two: Started):
    async with two(PresenceSettings(ttl=300 * MS, grace=60_000 * MS, window=10 * MS)) as instances:
        await instances.socket(0, "a", user="ana")
        frozen = instances.managers[0].tracker._task
        await eventually(["ana"], instances.managers[1])
        await frozen.stop()
        await eventually([], instances.managers[1])
        frozen.start()
        await eventually(["ana"], instances.managers[1])


@pytest.mark.redis
async def test_when_redis_comes_back_empty_nobody_is_told_to_have_left(redis_server: RedisServer):
    managers = [
        WebSocketConnectionManager(RedisWebSocketConnectionBackend(redis_server.url), presence=QUICK) for _ in range(2)
    ]
    async with cluster(*managers) as instances:
        await instances.socket(0, "a", user="ana")
        await instances.socket(1, "a", user="bob")
        for manager in managers:
            await manager.presence("a")
        watcher = await watching(instances)
        slow = managers[0].tracker._task
        await slow.stop()
        redis_server.restart()
        await eventually(["bob"], managers[1])  # ana is there, but her instance has not written it yet
        slow.start()
        await eventually(["ana", "bob"], managers[1])
        await instances.socket(0, "a", user="cleo")
        await until(lambda: any("joined" in update for update in told_presence(watcher)[1:]), 15)
        assert told_presence(watcher) == [state(user("ana"), user("bob")), diff(3, joined=[user("cleo")])]


def told_presence(socket: Socket) -> list[dict[str, Any]]:
    """As `told`, where gaps are reported too."""
    messages = [json.loads(frame) for frame in socket.server.frames]
    return [
        {key: value for key, value in each["message"].items() if value != []}
        for each in messages
        if each["MESSAGE_ID"] == "jararaca.presence"
    ]


@pytest.mark.redis
async def test_while_redis_is_away_presence_is_an_error_and_it_catches_up(redis_server: RedisServer):
    backend = RedisWebSocketConnectionBackend(redis_server.url, publish_timeout=300 * MS)
    async with cluster(WebSocketConnectionManager(backend, presence=QUICK)) as instances:
        manager = instances.managers[0]
        leaving = await instances.socket(0, "a", user="leaving")
        staying = await instances.socket(0, "a", user="staying")
        await manager.presence("a")
        await until(lambda: manager.tracker.healthy)
        redis_server.pause()
        try:
            with pytest.raises(BackendUnavailable):
                await manager.presence("a")
            await leaving.connection.close()
            await staying.connection.set_metadata({"n": 1})
            await until(lambda: not manager.tracker.healthy)
        finally:
            redis_server.resume()
        async with asyncio.timeout(10):
            while [entry.user_id for entry in await again(manager)] != ["staying"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [entry.metadata for entry in await again(manager)] == [{"n": 1}]
        await until(lambda: manager.tracker.healthy)


async def again(manager: WebSocketConnectionManager) -> list[Any]:
    async with asyncio.timeout(10):
        while True:
            try:
                return await manager.presence("a")
            except BackendUnavailable:
                await asyncio.sleep(0.01)


@pytest.mark.redis
async def test_f47_what_others_write_into_our_hashes_is_skipped(redis_server: RedisServer):
    backend = RedisWebSocketConnectionBackend(redis_server.url)
    async with (
        cluster(WebSocketConnectionManager(backend, presence=QUICK)) as instances,
        Redis.from_url(redis_server.url) as client,
    ):
        await instances.socket(0, "a", user="ana")
        await instances.managers[0].presence("a")
        [key] = await client.keys("*presence*")
        assert key == b"jararaca:websocket:presence:{a}"
        life = (await client.hkeys(key))[0].partition(b"/")[0]
        garbage = {
            b"x": b"y",
            b"/": b"[]",
            life + b"/z": b"{",
            b"\xff/\xff": b"[null,{},1,false]",
            b"z": b"[null,{},1,false]",
        }
        await client.hset(key, mapping=garbage)
        assert await present(instances.managers[0]) == ["ana"]


@pytest.mark.redis
async def test_keys_go_by_themselves(redis_server: RedisServer):
    backend = RedisWebSocketConnectionBackend(redis_server.url)
    settings = PresenceSettings(ttl=60_000 * MS, grace=100 * MS, window=10 * MS)
    async with Redis.from_url(redis_server.url) as client:
        async with cluster(WebSocketConnectionManager(backend, presence=settings)) as instances:
            leaving: WebSocketConnection = (await instances.socket(0, "a", "b", user="ana")).connection
            await instances.managers[0].presence("a")
            assert len(await client.keys("*")) == 3
            await leaving.leave("b")
            async with asyncio.timeout(10):
                while len(await client.keys("*presence*")) > 1:  # noqa: ASYNC110 - until the mark is taken away
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while await client.keys("*instance*"):  # noqa: ASYNC110 - after the grace period, not the TTL
                await asyncio.sleep(0.01)
        [left] = await client.keys("*")
        assert 0 < await client.pttl(left) <= 60_100


@pytest.mark.redis
async def test_what_a_dead_instance_left_in_a_room_that_nobody_watches_goes(redis_server: RedisServer):
    settings = PresenceSettings(ttl=300 * MS, grace=100 * MS, window=10 * MS)
    managers = [
        WebSocketConnectionManager(RedisWebSocketConnectionBackend(redis_server.url), presence=settings)
        for _ in range(2)
    ]
    async with cluster(*managers) as instances, Redis.from_url(redis_server.url) as client:
        for n, name in enumerate(("ana", "bob")):
            await instances.socket(n, "a", user=name)
            await managers[n].presence("a")
        assert await client.hlen("jararaca:websocket:presence:{a}") == 2
        await managers[0].tracker._task.stop()
        async with asyncio.timeout(10):
            while await client.hlen("jararaca:websocket:presence:{a}") > 1:  # noqa: ASYNC110 - no event announces it
                await asyncio.sleep(0.01)
