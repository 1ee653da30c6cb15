"""Users across the cluster, on every kind of backend: one instance asks, the user is on another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

import pytest

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.context import use_ws_manager
from jararaca_ws.delivery import recoverable
from jararaca_ws.errors import BackendUnavailable, BadRoom, BadUserId, ConfigurationError, ConnectionClosed
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.microservice import Delete, RestController
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.sockets.connection import WebSocketConnection
from tests.contract.conftest import REDIS, on_redis
from tests.servers import RedisServer
from tests.unit.apps import end_of, running
from tests.unit.clusters import Cluster, HubBackend, MakeBackend, cluster
from tests.unit.played import Socket, turns, until

Started = Callable[[], AbstractAsyncContextManager[Cluster]]


class Note(WebSocketMessage):
    MESSAGE_ID = "test_users.note"

    text: str = "hi"


class Kept(WebSocketMessage):
    MESSAGE_ID = "test_users.kept"
    DELIVERY = recoverable(size=10, ttl=timedelta(minutes=1))


@pytest.fixture(params=["four methods", *REDIS])
def make(request: pytest.FixtureRequest) -> MakeBackend:
    if request.param == "four methods":
        hub: list[HubBackend] = []
        return lambda: HubBackend(hub)
    return on_redis(request, unsubscribe_linger=timedelta(0))


@pytest.fixture
def two(make: MakeBackend) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[Cluster]:
        async with cluster(*(WebSocketConnectionManager(make()) for _ in range(2))) as instances:
            yield instances

    return started


def texts(socket: Socket) -> list[str]:
    return [json.loads(frame)["message"]["text"] for frame in socket.server.frames]


async def test_every_connection_of_the_user_gets_it_and_nobody_else(two: Started):
    async with two() as instances:
        here = await instances.socket(0, user="ana")
        there = await instances.socket(1, user="ana")
        other = await instances.socket(1, user="bob")
        anonymous = await instances.socket(1, "ana")
        await instances.managers[0].send_to_user("ana", Note(text="for ana"))
        await instances.managers[0].send_to_user("bob", Note(text="for bob"))
        await until(lambda: texts(here) and texts(there) and texts(other))
        assert texts(here) == texts(there) == ["for ana"]
        assert texts(other) == ["for bob"]
        assert texts(anonymous) == []


async def test_ids_are_literal(two: Started):
    names = ["a,b", "a", "b", "*", "?", "user:a", "ana ", "größe", "Z" * 255]
    async with two() as instances:
        sockets = {name: await instances.socket(1, user=name) for name in names}
        for name in names:
            await instances.managers[0].send_to_user(name, Note(text=name))
        await until(lambda: all(texts(socket) for socket in sockets.values()))
        assert {name: texts(socket) for name, socket in sockets.items()} == {name: [name] for name in names}


async def test_disconnect_closes_on_the_other_instance_with_the_code(two: Started):
    async with two() as instances:
        one, other_tab = await instances.socket(1, user="ana"), await instances.socket(0, user="ana")
        bob = await instances.socket(1, user="bob")
        await instances.managers[0].send_to_user("ana", Note(text="last"))
        await instances.managers[0].disconnect_user("ana", 4503, "elsewhere")
        for socket in (one, other_tab):
            await socket.ended()
            assert socket.server.close == (4503, "elsewhere")
            assert texts(socket) == ["last"]  # what was sent before comes before the close
        assert bob.connection.alive
        # The room of the user is as gone as any other.
        assert [list(manager.delivery.rooms) for manager in instances.managers] == [[], ["\x01user:bob"]]


async def test_leave_takes_the_user_out_of_rooms_on_every_instance(two: Started):
    async with two() as instances:
        ana = [await instances.socket(n, "a", "b", "c", user="ana") for n in range(2)]
        bob = await instances.socket(1, "a", user="bob")
        await instances.managers[0].leave_user("ana", ["a", "b", "never joined"])
        for socket in ana:
            await until(lambda socket=socket: list(socket.connection.rooms) == ["c"])
        assert list(bob.connection.rooms) == ["a"]
        await instances.managers[0].send_to_user("ana", Note())  # still identified
        await until(lambda: all(texts(socket) for socket in ana))


async def test_the_room_of_a_user_is_never_shown(two: Started):
    async with two() as instances:
        socket = await instances.socket(0, "a", user="ana")
        assert list(socket.connection.rooms) == ["a"]
        assert list(instances.managers[0].rooms) == ["a"]
        with pytest.raises(BadRoom):
            await socket.connection.join("\x01user:bob")


async def test_whose_it_is_can_change(two: Started):
    async with two() as instances:
        socket = await instances.socket(1, user="ana")
        await socket.connection.identify("ana")
        await socket.connection.identify("bob")
        assert socket.connection.user_id == "bob"
        await instances.managers[0].send_to_user("ana", Note(text="ana"))
        await instances.managers[0].send_to_user("bob", Note(text="bob"))
        await until(lambda: texts(socket))
        assert texts(socket) == ["bob"]


@pytest.mark.parametrize("bad", ["", "a\nb", "\x01user:x", "x" * 300, "ü" * 128, "\u202e", 7])
async def test_what_is_no_user_id_is_refused(two: Started, bad: str):
    async with two() as instances:
        manager = instances.managers[0]
        socket = await instances.socket(0)
        for refused in (
            socket.connection.identify(bad),
            manager.send_to_user(bad, Note()),
            manager.disconnect_user(bad),
            manager.leave_user(bad, ["a"]),
        ):
            with pytest.raises(BadUserId):
                await refused
        assert socket.connection.user_id is None


async def test_bad_codes_and_rooms_are_refused_where_they_are_written(two: Started):
    async with two() as instances:
        manager = instances.managers[0]
        with pytest.raises(ValueError, match="1006"):
            await manager.disconnect_user("ana", 1006)
        with pytest.raises(BadRoom):
            await manager.leave_user("ana", ["a\n"])
        with pytest.raises(ConfigurationError, match="never started"):
            await WebSocketConnectionManager(manager.backend).disconnect_user("ana")


@pytest.mark.parametrize(
    "payload",
    [
        b"\x02",
        b"\x02{",
        b'\x02{"command":"dance"}',
        b'\x02{"command":"disconnect","code":1006,"reason":""}',
        b'\x02{"command":"leave","rooms":7}',
    ],
)
async def test_f46_unknown_commands_are_dropped_and_counted(two: Started, payload: bytes):
    async with two() as instances:
        socket = await instances.socket(1, user="ana")
        await instances.managers[0].backend.send(["\x01user:ana"], payload)
        await until(lambda: instances.managers[1].counters.dropped == 1)
        await instances.managers[0].send_to_user("ana", Note())
        await until(lambda: texts(socket))
        assert socket.connection.alive


async def test_who_has_gone_cannot_be_identified(two: Started):
    async with two() as instances:
        socket = await instances.socket(0)
        await socket.connection.close()
        with pytest.raises(ConnectionClosed):
            await socket.connection.identify("ana")
        assert list(instances.managers[0].delivery.rooms) == []


@pytest.mark.redis
async def test_a_failed_identify_changes_nothing(redis_server: RedisServer):
    backend = RedisWebSocketConnectionBackend(
        redis_server.url, subscribe_timeout=timedelta(milliseconds=200), unsubscribe_linger=timedelta(0)
    )
    async with cluster(WebSocketConnectionManager(backend)) as instances:
        socket = await instances.socket(0, user="ana")
        redis_server.pause()
        try:
            with pytest.raises(BackendUnavailable):
                await socket.connection.identify("bob")
        finally:
            redis_server.resume()
        await turns()
        assert socket.connection.user_id == "ana"
        assert list(instances.managers[0].delivery.rooms) == ["\x01user:ana"]


async def test_a_gap_of_the_user_alone_is_told_without_a_room(two: Started):
    async with two() as instances:
        ana = await instances.socket(0, user="ana", v1=True)
        bob = await instances.socket(0, user="bob", v1=True)
        instances.managers[0].delivery.report_gap(["\x01user:ana"], broadcasts=False)
        await until(lambda: ana.server.frames)
        assert [json.loads(frame)["message"] for frame in ana.server.frames] == [{"room": None}]
        assert bob.server.frames == []
        instances.managers[0].delivery.report_gap(["\x01user:ana"], broadcasts=True)
        await until(lambda: bob.server.frames)
        await turns()
        assert len(ana.server.frames) == 2


async def test_what_is_kept_in_rooms_cannot_be_sent_to_a_user(two: Started):
    async with two() as instances:
        with pytest.raises(ConfigurationError, match="cannot be sent to a user"):
            await instances.managers[0].send_to_user("ana", Kept())


@RestController("/users")
class Users:
    @Delete("/{user_id}")
    async def ban(self, user_id: str) -> None:
        await use_ws_manager().disconnect_user(user_id)

    @WebSocketEndpoint("/{user_id}")
    async def listen(self, connection: WebSocketConnection, user_id: str) -> None:
        await connection.identify(user_id)


async def test_a_bad_user_id_of_a_client_is_its_mistake_and_is_not_repeated_to_it():
    async with running(Users) as app:
        bad = "x" * 300
        response = await app.http.delete(f"/users/{bad}")
        told = response.json()
        assert (response.status_code, told["code"]) == (400, "bad_request")
        assert told["detail"] == "not a user id: it is longer than 255 bytes of UTF-8"
        assert bad not in response.text
        end = await end_of(app, f"/users/{bad}")
        assert (end.code, end.reason) == (4501, "not a user id: it is longer than 255 bytes of UTF-8")
