from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.backends.memory_presence import MemoryPresence, MemoryPresenceStore
from jararaca_ws.backends.presence import PresenceMember, PresenceStore
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.presence import PresenceSettings
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.clusters import cluster
from tests.unit.played import serving, turns, until, until_closed

MS = timedelta(milliseconds=1)


class Note(WebSocketMessage):
    MESSAGE_ID = "test_tracker.note"


class Store(MemoryPresenceStore):
    """Fails, waits and counts as a test says."""

    error: BackendUnavailable | None = None
    reads = 0
    retired = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answering = asyncio.Event()
        self.answering.set()

    async def _asked(self) -> None:
        await self.answering.wait()
        if self.error is not None:
            raise self.error

    async def register(self) -> None:
        await self._asked()
        await super().register()

    async def write(self, changes: Any) -> None:
        await self._asked()
        await super().write(changes)

    async def read(self, rooms: Sequence[str]) -> list[list[PresenceMember]]:
        self.reads += 1
        await self._asked()
        return await super().read(rooms)

    async def retire(self) -> None:
        await self._asked()
        self.retired = True


class Backend(MemoryWebSocketConnectionBackend):
    store: Store

    def presence_store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> PresenceStore:
        self.store = Store(MemoryPresence(), instance_id, ttl_ms, grace_ms)
        return self.store


def manager_of(backend: Backend, **options: Any) -> WebSocketConnectionManager:
    return WebSocketConnectionManager(backend, presence=PresenceSettings(**{"window": 0 * MS, **options}))


async def test_an_application_does_not_start_where_presence_cannot():
    backend = Backend()
    manager = manager_of(backend)
    backend.store.error = BackendUnavailable("it sleeps")
    with pytest.raises(BackendUnavailable):
        await manager.start()
    with pytest.raises(BackendUnavailable, match="not running"):
        await backend.send(["a"], b"")  # it was shut down again


async def test_the_end_waits_for_presence_for_a_short_time_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jararaca_ws.presence.tracker._PARTING_S", 0.05)
    backend = Backend()
    before = asyncio.all_tasks()
    async with cluster(manager_of(backend)) as instances:
        await instances.socket(0, "a")
        backend.store.answering.clear()
    assert not backend.store.retired
    assert asyncio.all_tasks() <= before


async def test_a_store_that_fails_is_asked_again_and_makes_readiness_red():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        manager = instances.managers[0]
        await until(lambda: manager.tracker.healthy)
        backend.store.error = BackendUnavailable("it sleeps")
        await instances.socket(0, "a", user="ana")
        await until(lambda: not manager.tracker.healthy)
        assert [part.reason for part in manager.health() if not part.healthy] == ["presence is not up to date"]
        with pytest.raises(BackendUnavailable):
            await manager.presence("a")
        backend.store.error = None
        await until(lambda: manager.tracker.healthy)
        assert all(part.healthy for part in manager.health())
        assert [entry.user_id for entry in await manager.presence("a")] == ["ana"]


async def test_a_reading_that_fails_is_made_up_for():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        watcher = await instances.socket(0, v1=True)
        backend.store.error = BackendUnavailable("it sleeps")
        await watcher.connection.watch_presence("a")
        await until(lambda: backend.store.reads)
        assert watcher.server.frames == []
        backend.store.error = None
        await until(lambda: watcher.server.frames)


async def test_a_cancelled_question_harms_nobody():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        manager = instances.managers[0]
        await instances.socket(0, "a", user="ana")
        await manager.presence("a")
        backend.store.answering.clear()
        question = asyncio.create_task(manager.presence("a"))
        await until(lambda: backend.store.reads >= 2)
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        backend.store.answering.set()
        assert [entry.user_id for entry in await manager.presence("a")] == ["ana"]


async def test_who_left_while_it_was_written_is_not_left_there():
    backend = Backend()
    async with cluster(manager_of(backend, grace=0 * MS)) as instances:
        manager = instances.managers[0]
        await until(lambda: manager.tracker.healthy)
        backend.store.answering.clear()
        socket = await instances.socket(0, "a", user="ana")
        await turns()
        await socket.connection.leave("a")
        backend.store.answering.set()
        assert await manager.presence("a") == []
        await turns()
        assert backend.store._shared.rooms == {}


async def test_a_gap_has_watched_rooms_read_again():
    backend = Backend()
    async with cluster(manager_of(backend, ttl=timedelta(hours=1))) as instances:
        watcher = await instances.socket(0, v1=True)
        await watcher.connection.watch_presence("a")
        await until(lambda: watcher.server.frames)
        reads = backend.store.reads
        await turns()
        assert backend.store.reads == reads
        instances.managers[0]._report_gap(["\x01presence:a", "b"], broadcasts=False)
        await until(lambda: backend.store.reads == reads + 1)
        assert len(watcher.server.frames) == 1  # a gap of a room that it is not in is none of its business


async def test_who_watches_before_its_handshake_is_accepted_is_told_after_it():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        manager = instances.managers[0]
        async with serving(until_closed, manager=manager, subprotocols=[SUBPROTOCOL], accept=False) as socket:
            connection = socket.connection
            connection.bind(manager)
            await connection.watch_presence("a")
            await until(lambda: backend.store.reads)
            await turns()
            assert socket.server.frames == []
            await connection.accept()
            await until(lambda: socket.server.frames)
            assert json.loads(socket.server.frames[0])["message"]["kind"] == "state"


async def test_idle_it_does_nothing():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        manager = instances.managers[0]
        await instances.socket(0, "a", user="ana")
        await manager.presence("a")
        await until(lambda: manager.tracker.healthy)
        await turns()
        reads = backend.store.reads
        await instances.managers[0].send(["a"], Note())
        await turns(100)
        assert backend.store.reads == reads


async def test_who_asks_first_after_a_loss_has_it_made_good():
    backend = Backend()
    async with cluster(manager_of(backend, ttl=timedelta(hours=1))) as instances:
        manager = instances.managers[0]
        await instances.socket(0, "a", user="ana")
        await manager.presence("a")
        await until(lambda: manager.tracker.healthy)
        backend.store._shared.alive.clear()
        backend.store._shared.rooms.clear()
        assert [entry.user_id for entry in await manager.presence("a")] == ["ana"]


async def test_who_stops_watching_while_it_is_read_is_told_nothing():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        watcher = await instances.socket(0, v1=True)
        backend.store.answering.clear()
        await watcher.connection.watch_presence("a")
        await until(lambda: backend.store.reads)
        await watcher.connection.unwatch_presence("a")
        backend.store.answering.set()
        assert await instances.managers[0].presence("a") == []
        assert watcher.server.frames == []
        assert list(instances.managers[0].tracker._watchers.rooms) == []


async def test_a_nudge_that_is_refused_harms_nobody():
    backend = Backend()
    async with cluster(manager_of(backend)) as instances:
        manager = instances.managers[0]
        await until(lambda: manager.tracker.healthy)

        async def refuse(*_: Any) -> None:
            raise BackendUnavailable("it sleeps")

        manager.tracker._command = refuse
        await instances.socket(0, "a", user="ana")
        assert [entry.user_id for entry in await manager.presence("a")] == ["ana"]
        assert manager.tracker.healthy


async def test_who_comes_and_goes_while_the_store_is_away_is_not_remembered():
    backend = Backend()
    async with manager_of(backend) as manager, serving(until_closed, manager=manager) as stays:
        await until(lambda: manager.connections)
        backend.store.error = BackendUnavailable("it is away")
        await manager.join(["a"], stays.connection)
        await turns()
        await manager.tracker._task.stop()  # it would try again in the middle of a round, and keep whom it has tried
        for _ in range(20):
            async with serving(until_closed, manager=manager) as goes:
                await until(lambda: len(manager.connections) == 2)
                await manager.join(["a"], goes.connection)
        # Whoever was there while it was tried again may have been written, and is remembered: that is seldom.
        remembered = list(manager.tracker._members._touched)
        assert ("a", stays.connection) in remembered
        assert len(remembered) <= 1 + manager.tracker._task.restarts
        backend.store.error = None


async def test_watching_that_is_undone_while_it_begins_leaves_nothing():
    class Subscribing(Backend):
        def __init__(self) -> None:
            super().__init__()
            self.confirmed = asyncio.Event()
            self.confirmed.set()  # the manager itself subscribes at its start

        async def subscribe(self, rooms: Any) -> None:
            await self.confirmed.wait()

        def unsubscribe(self, rooms: Any) -> None:
            pass

    backend = Subscribing()
    async with (
        manager_of(backend) as manager,
        serving(until_closed, manager=manager, subprotocols=[SUBPROTOCOL]) as socket,
    ):
        await until(lambda: manager.connections)
        backend.confirmed.clear()
        watching = asyncio.create_task(socket.connection.watch_presence("a"))
        await turns()
        await socket.connection.unwatch_presence("a")
        backend.confirmed.set()
        await watching
        assert not manager.tracker._watchers.rooms
