"""Users that are asked, and connections that are sent to by their ids, on every kind of backend and any instance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.delivery import latest, recoverable
from jararaca_ws.errors import (
    BackendUnavailable,
    BadConnectionId,
    BadUserId,
    CallFailed,
    CallTimeout,
    ConfigurationError,
)
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.rooms import instance_room
from jararaca_ws.rpc import WebSocketRequest
from jararaca_ws.settings import WebSocketSettings
from tests.unit.clusters import Cluster, HubBackend, MakeBackend, cluster
from tests.unit.played import Socket, errors_in, turns, until

Started = Callable[[], AbstractAsyncContextManager[Cluster]]


class Note(WebSocketMessage):
    MESSAGE_ID = "test_calls.note"

    text: str = "hi"


class Latest(WebSocketMessage):
    MESSAGE_ID = "test_calls.latest"
    DELIVERY = latest(key="text")

    text: str = "hi"


class Kept(WebSocketMessage):
    MESSAGE_ID = "test_calls.kept"
    DELIVERY = recoverable(size=10, ttl=timedelta(minutes=1))


class HowMany(WebSocketRequest[int]):
    MESSAGE_ID = "test_calls.how_many"

    what: str = "größe"


class KeptRequest(WebSocketRequest[int]):
    MESSAGE_ID = "test_calls.kept_request"
    DELIVERY = recoverable(size=10, ttl=timedelta(minutes=1))


@pytest.fixture
def two(make: MakeBackend) -> Started:
    @asynccontextmanager
    async def started() -> AsyncIterator[Cluster]:
        async with cluster(*(WebSocketConnectionManager(make()) for _ in range(2))) as instances:
            yield instances
            # Whatever happened, nobody waits any more.
            assert [len(manager._calls) for manager in instances.managers] == [0, 0]

    return started


def seen(socket: Socket) -> list[Any]:
    return [json.loads(frame) for frame in socket.server.frames]


async def asked(socket: Socket) -> str:
    await until(lambda: socket.server.frames)
    ref = seen(socket)[-1]["ref"]
    assert seen(socket)[-1] == {"MESSAGE_ID": "test_calls.how_many", "message": {"what": "größe"}, "ref": ref}
    return ref


def answer(socket: Socket, ref: str, value: Any) -> None:
    socket.server.text(json.dumps({"MESSAGE_ID": "jararaca.reply", "message": value, "ref": ref}))


def refuse(socket: Socket, ref: str) -> None:
    socket.server.text(json.dumps({"MESSAGE_ID": "jararaca.error", "message": {"code": "busy"}, "ref": ref}))


def waiting(socket: Socket) -> int:
    return len(socket.connection.asking())


@pytest.mark.parametrize("where", [0, 1])
async def test_a_user_is_asked_wherever_it_is(two: Started, where: int):
    async with two() as instances:
        ana = await instances.socket(where, user="ana")
        bob = await instances.socket(1, user="bob")
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        answer(ana, await asked(ana), 3)
        assert await call == 3
        assert seen(bob) == []
        assert waiting(ana) == 0


async def test_the_first_reply_counts_and_the_others_are_swallowed(two: Started):
    async with two() as instances:
        tabs = [await instances.socket(n, user="ana") for n in range(2)]
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        refs = [await asked(tab) for tab in tabs]
        answer(tabs[1], refs[1], 2)
        assert await call == 2
        answer(tabs[0], refs[0], 1)
        await until(lambda: waiting(tabs[0]) == 0)
        answer(tabs[0], refs[0], 1)  # and again
        # The next call is not answered by what was meant for the one before.
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        await until(lambda: len(tabs[0].server.frames) == 2)
        answer(tabs[0], seen(tabs[0])[1]["ref"], 7)
        assert await call == 7


async def test_many_calls_at_once_get_each_its_own(two: Started):
    async with two() as instances:
        users = [await instances.socket(n % 2, user=f"user {n}") for n in range(10)]
        calls = [
            asyncio.create_task(instances.managers[n % 3 % 2].call_user(f"user {n}", HowMany())) for n in range(10)
        ]
        for n, user in reversed(list(enumerate(users))):
            answer(user, await asked(user), n)
        assert await asyncio.gather(*calls) == list(range(10))


async def test_errors_of_the_client_are_errors_of_the_call(two: Started):
    async with two() as instances:
        ana = await instances.socket(1, user="ana")
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        refuse(ana, await asked(ana))
        with pytest.raises(CallFailed, match="busy"):
            await call
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        await until(lambda: len(ana.server.frames) == 2)
        answer(ana, seen(ana)[1]["ref"], "not a number")
        with pytest.raises(CallFailed, match="bad_reply"):
            await call


async def test_nobody_who_answers_is_a_timeout_and_nothing_is_left(two: Started):
    async with two() as instances:
        with pytest.raises(CallTimeout):
            await instances.managers[0].call_user("nobody", HowMany(), timedelta(milliseconds=20))
        ana = await instances.socket(1, user="ana")
        with pytest.raises(CallTimeout):
            await instances.managers[0].call_user("ana", HowMany(), timedelta(milliseconds=300))
        assert len(ana.server.frames) == 1
        await until(lambda: waiting(ana) == 0)


async def test_a_connection_that_goes_and_a_caller_that_is_cancelled(two: Started, caplog: pytest.LogCaptureFixture):
    async with two() as instances:
        ana = await instances.socket(1, user="ana")
        tab = await instances.socket(1, user="ana")
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        await asked(ana)
        ref = await asked(tab)
        ana.server.disconnect()
        await ana.ended()
        assert waiting(ana) == 0
        assert not call.done()  # the other tab may still answer
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        answer(tab, ref, 1)
        await until(lambda: waiting(tab) == 0)
        await turns()
        assert errors_in(caplog) == []


async def test_a_client_that_is_asked_too_much_is_not_asked(two: Started, caplog: pytest.LogCaptureFixture):
    async with two() as instances:
        ana = await instances.socket(1, user="ana")
        for n in range(WebSocketSettings().max_pending_calls):
            ana.connection.asking().expect(f"own {n}")
        with pytest.raises(CallTimeout):
            await instances.managers[0].call_user("ana", HowMany(), timedelta(milliseconds=100))
        assert seen(ana) == []


async def test_an_instance_that_stops_lets_nobody_wait(make: MakeBackend):
    async with cluster(WebSocketConnectionManager(make())) as other:
        ana = await other.socket(0, user="ana")
        async with WebSocketConnectionManager(make()) as manager:
            call = asyncio.create_task(manager.call_user("ana", HowMany()))
            await asked(ana)
        with pytest.raises(CallFailed, match="stopped"):
            await call
        answer(ana, await asked(ana), 1)  # to nobody
        await until(lambda: waiting(ana) == 0)
        await turns()


async def test_what_cannot_be_asked_is_refused_at_once(two: Started):
    async with two() as instances:
        manager = instances.managers[0]
        with pytest.raises(BadUserId):
            await manager.call_user("a\nb", HowMany())
        with pytest.raises(ConfigurationError, match="recoverable"):
            await manager.call_user("ana", KeptRequest())
    with pytest.raises(ConfigurationError, match="never started"):
        await WebSocketConnectionManager(HubBackend([])).call_user("ana", HowMany())


async def test_a_backend_that_is_away_is_said(make: MakeBackend, monkeypatch: pytest.MonkeyPatch):
    async def away(*_: Any) -> None:
        raise BackendUnavailable("it sleeps")

    async with cluster(WebSocketConnectionManager(make())) as instances:
        [manager] = instances.managers
        monkeypatch.setattr(manager, "_carry", away)
        with pytest.raises(BackendUnavailable):
            await manager.call_user("ana", HowMany())
        assert len(manager._calls) == 0


async def test_answers_that_cannot_be_published_are_dropped_and_the_next_ones_are_not(
    make: MakeBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def away(*_: Any) -> None:
        raise BackendUnavailable("it sleeps")

    async with cluster(*(WebSocketConnectionManager(make()) for _ in range(2))) as instances:
        ana = await instances.socket(1, user="ana")
        with monkeypatch.context() as broken:
            lost = asyncio.create_task(instances.managers[0].call_user("ana", HowMany(), timedelta(seconds=20)))
            ref = await asked(ana)
            broken.setattr(instances.managers[1], "_carry", away)
            answer(ana, ref, 1)
            await until(lambda: "answers could not be published" in caplog.text)
        call = asyncio.create_task(instances.managers[0].call_user("ana", HowMany()))
        await until(lambda: len(ana.server.frames) == 2)
        answer(ana, seen(ana)[1]["ref"], 2)
        assert await call == 2
        assert errors_in(caplog) == []
        lost.cancel()


# --- connections ------------------------------------------------------------------------------------------------------


async def test_a_message_finds_its_connection_and_no_other(two: Started):
    async with two() as instances:
        sockets = [await instances.socket(n % 2, "a") for n in range(4)]
        for n, socket in enumerate(sockets):
            assert socket.connection.id.startswith(instances.managers[n % 2].instance_id)
            await instances.managers[0].send_to_connection(socket.connection.id, Note(text=f"for {n}"))
            await instances.managers[0].send_to_connection(socket.connection.id, Latest(text=f"for {n}"))
        for n, socket in enumerate(sockets):
            await until(lambda socket=socket: len(socket.server.frames) == 2)
            assert [frame["message"]["text"] for frame in seen(socket)] == [f"for {n}"] * 2


async def test_one_that_has_gone_is_no_error_and_one_that_is_none_is(two: Started):
    async with two() as instances:
        gone = await instances.socket(1)
        gone.server.disconnect()
        await gone.ended()
        manager = instances.managers[0]
        await manager.send_to_connection(gone.connection.id, Note())
        for bad in ("", "*", gone.connection.id + "\n", manager.instance_id, f"{manager.instance_id}.x", "ä" * 49):
            with pytest.raises(BadConnectionId):
                await manager.send_to_connection(bad, Note())
        with pytest.raises(ConfigurationError, match="recoverable"):
            await manager.send_to_connection(gone.connection.id, Kept())
        assert instances.managers[1].delivery.by_id == {}


async def test_what_an_instance_may_have_missed_is_told_to_its_connections(two: Started):
    async with two() as instances:
        manager = instances.managers[0]
        plain, v1 = await instances.socket(0), await instances.socket(0, v1=True)
        manager._report_gap([instance_room(manager.instance_id)], broadcasts=False)
        await until(lambda: v1.server.frames)
        assert seen(v1) == [{"MESSAGE_ID": "jararaca.gap", "message": {"room": None}}]
        assert seen(plain) == []
        assert list(manager.rooms) == []
