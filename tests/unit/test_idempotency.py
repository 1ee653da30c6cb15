"""Sends with an id: a second try, and a bus message that is delivered twice, reach the browser once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jararaca_ws.backends import memory_history
from jararaca_ws.backends.base import Publication, Retention
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.context import use_ws_message_sender
from jararaca_ws.errors import BackendUnavailable, ConfigurationError
from jararaca_ws.interceptors.base import AppTransactionContext, HttpTransactionData, MessageBusTransactionData
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.microservice import Microservice
from tests.unit.histories import Kept, Passing, fleet, kept, settled
from tests.unit.played import turns, until
from tests.unit.test_manager import News, house, texts


@pytest.mark.parametrize("message", [Kept(n=1), Passing(n=1)], ids=["kept", "passing"])
async def test_a_send_with_the_id_of_an_earlier_one_reaches_nobody(message: Any):
    async with house() as it:
        socket, late = await it.socket("a", "b"), await it.socket()
        await it.manager.send(["a"], message, id="order-7")
        await it.manager.join(["a"], late.connection)
        await it.manager.send(["a"], message, id="order-7")
        await it.manager.send(["a"], message, id="order-8")
        await until(lambda: len(late.server.frames) == 1)
        await turns()
        assert len(socket.server.frames) == 2


async def test_an_id_belongs_to_a_room():
    async with house() as it:
        a, b = await it.socket("a"), await it.socket("b")
        await it.manager.send(["a"], News(), id="x")
        await it.manager.send(["a", "b"], News(), id="x")
        await until(lambda: texts(b))
        await turns()
        assert (texts(a), texts(b)) == (["hi"], ["hi"])


@pytest.mark.parametrize("bad", ["", "a\nb", "ü" * 128, "x" * 256])
async def test_an_id_is_short_and_printable(bad: str):
    async with house() as it:
        with pytest.raises(ValueError, match="id of a send"):
            await it.manager.send(["a"], News(), id=bad)
        await it.manager.send(["a"], News(), id="ü" * 127)


async def test_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(memory_history.time, "monotonic", lambda: now)
    async with house() as it:
        socket = await it.socket("a")
        for at, expected in ((0, 1), (299, 1), (301, 2)):
            now = at
            await it.manager.send(["a"], News(), id="x")
            await turns()
            assert len(texts(socket)) == expected


async def test_a_recoverable_message_is_not_broadcast():
    async with house() as it:
        with pytest.raises(ConfigurationError, match="broadcast"):
            await it.manager.broadcast(Kept(n=1))


async def test_a_second_try_of_what_is_kept_is_kept_once():
    async with fleet() as [one]:
        socket = await one.connect("a", "b")
        publication = one.manager.prepare(["a", "b"], Kept(n=1))
        for _ in range(2):
            await one.manager.publish([publication])
        await settled(one)
        assert kept(socket) == [1]
        assert one.manager.delivery.streams.position("a").offset == 1


class Handlers:
    async def paid(self) -> None: ...

    async def booked(self) -> None: ...


def delivered(message_id: str, handler: Any = Handlers.paid) -> AppTransactionContext:
    data = MessageBusTransactionData(topic="t", message=None, message_id=message_id, attempt=1)
    return AppTransactionContext(transaction_data=data, controller=Handlers, handler=handler)


async def test_f36_a_bus_message_that_is_delivered_twice_reaches_the_browser_once():
    interceptor = WebSocketInterceptor()
    async with interceptor.lifecycle(Microservice(name="billing"), None):
        sent: list[Publication] = []
        backend = interceptor.manager.backend
        assert isinstance(backend, MemoryWebSocketConnectionBackend)

        async def handle(context: AppTransactionContext, *numbers: int) -> list[str]:
            publish = interceptor.manager.publish

            async def recorded(publications: Any) -> None:
                sent.extend(publications)
                await publish(publications)

            interceptor.manager.publish = recorded  # type: ignore[method-assign]
            try:
                sent.clear()
                async with interceptor.intercept(context):
                    for n in numbers:
                        await use_ws_message_sender().send(["a"], Kept(n=n))
            finally:
                interceptor.manager.publish = publish  # type: ignore[method-assign]
            assert all(publication.is_keyed for publication in sent)
            return [publication.id for publication in sent]

        first = await handle(delivered("m1"), 1, 2)
        assert await handle(delivered("m1"), 1, 2) == first
        others = [
            await handle(delivered("m1", Handlers.booked), 3, 4),
            await handle(delivered("m2"), 5, 6),
        ]
        assert len({*first, *others[0], *others[1]}) == 6
        numbers = [entry.message.model_dump()["n"] for entry in (await interceptor.manager.history("a")).messages]
        assert numbers == [1, 2, 3, 4, 5, 6]
    elsewhere = WebSocketInterceptor()
    async with elsewhere.lifecycle(Microservice(name="mailing"), None):
        assert elsewhere._key(delivered("m1")) != interceptor._key(delivered("m1"))


async def test_a_request_is_another_one_each_time():
    interceptor = WebSocketInterceptor()
    data = HttpTransactionData(request=None)  # type: ignore[arg-type]
    context = AppTransactionContext(transaction_data=data, controller=Handlers, handler=Handlers.paid)
    async with interceptor.lifecycle(None, None):
        for _ in range(2):
            async with interceptor.intercept(context):
                await use_ws_message_sender().send(["a"], Kept(n=1))
        assert len((await interceptor.manager.history("a")).messages) == 2


class TestMemory:
    async def test_it_takes_nothing_before_it_runs(self):
        publication = Publication(["a"], b"{}", "1", Retention(1, 1000))
        with pytest.raises(BackendUnavailable):
            await MemoryWebSocketConnectionBackend().send_many([publication])
        with pytest.raises(BackendUnavailable):
            await MemoryWebSocketConnectionBackend().broadcast(b"{}")
        with pytest.raises(BackendUnavailable):
            await MemoryWebSocketConnectionBackend().send(["a"], b"{}")

    async def test_it_keeps_where_nobody_asks_for_what_is_kept(self):
        async def taken(*_: Any, **__: Any) -> None: ...

        backend = MemoryWebSocketConnectionBackend()
        backend.configure(taken, taken, asyncio.Event())
        await backend.send_many([Publication(["a"], b"{}", "1", Retention(1, 1000))])
        assert len((await backend.history("a", None, 10)).entries) == 1

    async def test_rooms_are_forgotten_in_the_end(self, monkeypatch: pytest.MonkeyPatch):
        now = 0.0
        monkeypatch.setattr(memory_history.time, "monotonic", lambda: now)
        histories = memory_history.MemoryHistories()
        keep = Retention(10, 1000)
        for n in range(100):
            histories.append(f"r{n}", Publication([f"r{n}"], b"{}", str(n), keep), keep)
        first = histories.position("r0")
        now = 2.0
        for n in range(100):
            histories.append("busy", Publication(["busy"], b"{}", str(n), keep), keep)
        assert all(not kept.entries for room, kept in histories._rooms.items() if room != "busy"), "swept in turn"
        assert histories.position("r0") == first, "a position outlives its entries"
        now = 31 * 24 * 3600.0
        for n in range(100):
            histories.append("busy", Publication(["busy"], b"{}", str(n), keep), keep)
        assert list(histories._rooms) == ["busy"]
        assert not histories.read("r0", first, 10).recovered
