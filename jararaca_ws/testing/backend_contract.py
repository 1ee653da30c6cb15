"""The contract of a WebSocket backend, as checks that run under any test runner.

Each check takes a factory of new backends that reach one another (the same server, say), and raises AssertionError
where a backend breaks the contract. With pytest::

    @pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)
    async def test_my_backend(check):
        await check(make_backend)

A check for something that the backend does not claim to do passes without doing anything. What needs two instances is
checked only where two backends of the factory reach each other (``distributed=True``, the default).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from jararaca_ws.backends.base import (
    BatchingBackend,
    GapReportingBackend,
    Publication,
    StartableBackend,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.errors import BackendUnavailable

__all__ = ["BACKEND_CONTRACT", "MakeBackend", "Recorder"]

MakeBackend = Callable[[], WebSocketConnectionBackend]
Check = Callable[..., Awaitable[None]]

_TIMEOUT_S = 10.0
AWKWARD_ROOMS = [
    "a,b",
    "*",
    "?",
    "[x]",
    "{tag}",
    "a b",
    " a",
    "../x",
    "__keyspace@0__:x",
    "a:b",
    "%2C",
    "größe",
    "日本",
]


class Recorder:
    """One backend, started, and everything that it handed over."""

    def __init__(self, backend: WebSocketConnectionBackend) -> None:
        self.backend = backend
        self.sent: list[tuple[tuple[str, ...], bytes]] = []
        self.broadcasts: list[bytes] = []
        self.gaps: list[tuple[list[str], bool]] = []
        self.shutdown_event = asyncio.Event()
        self._changed = asyncio.Event()

    async def on_send(self, rooms: list[str], message: bytes) -> None:
        self.sent.append((tuple(rooms), message))
        self._changed.set()

    async def on_broadcast(self, message: bytes) -> None:
        self.broadcasts.append(message)
        self._changed.set()

    def on_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        self.gaps.append((sorted(rooms), broadcasts))
        self._changed.set()

    async def start(self) -> None:
        self.backend.configure(self.on_broadcast, self.on_send, self.shutdown_event)
        if isinstance(self.backend, GapReportingBackend):
            self.backend.on_gap(self.on_gap)
        if isinstance(self.backend, StartableBackend):
            await self.backend.start()

    async def stop(self) -> None:
        self.shutdown_event.set()
        await self.backend.shutdown()

    async def subscribe(self, *rooms: str) -> None:
        if isinstance(self.backend, SubscribingBackend):
            await self.backend.subscribe(rooms)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was handed over makes the condition true."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def settled(self) -> None:
        """Wait until everything sent before has been handed over: a broadcast of our own has come round."""
        mark = f'"settled {len(self.broadcasts)} {id(self)}"'.encode()
        await self.backend.broadcast(mark)
        await self.until(lambda: mark in self.broadcasts)

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.sent]


@asynccontextmanager
async def _started(make: MakeBackend, count: int = 1) -> AsyncIterator[list[Recorder]]:
    async with AsyncExitStack() as stack:
        recorders = [Recorder(make()) for _ in range(count)]
        for recorder in recorders:
            await recorder.start()
            stack.push_async_callback(recorder.stop)
        yield recorders


def _distributed(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        if distributed:
            await check(make)

    return guarded


def _local(check: Callable[[MakeBackend], Awaitable[None]]) -> Check:
    @functools.wraps(check)
    async def guarded(make: MakeBackend, *, distributed: bool = True) -> None:
        await check(make)

    return guarded


@_local
async def has_the_four_methods(make: MakeBackend) -> None:
    assert isinstance(make(), WebSocketConnectionBackend)


@_local
async def a_send_comes_back_to_the_sender(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.subscribe("a")
        await one.backend.send(["a"], b'"hello"')
        await one.until(lambda: bool(one.sent))
        assert one.sent == [(("a",), b'"hello"')]


@_local
async def a_broadcast_comes_back_to_the_sender(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.backend.broadcast(b'"hello"')
        await one.until(lambda: bool(one.broadcasts))
        assert one.broadcasts == [b'"hello"']
        assert one.sent == []


@_local
async def sends_stay_in_order(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.subscribe("a", "b")
        expected = [f'"{n}"'.encode() for n in range(300)]
        for n, message in enumerate(expected):
            await one.backend.send(["a"] if n % 3 else ["b", "a"], message)
        await one.until(lambda: len(one.sent) >= len(expected))
        assert one.messages == expected


@_local
async def a_send_to_several_rooms_is_handed_over_once(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.subscribe("a", "b")
        await one.backend.send(["a", "b"], b'"both"')
        await one.settled()
        assert len(one.sent) == 1, one.sent
        assert sorted(one.sent[0][0]) == ["a", "b"]


@_local
async def room_names_are_literal(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.subscribe(*AWKWARD_ROOMS, "a", "b", "x")
        for room in AWKWARD_ROOMS:
            await one.backend.send([room], room.encode())
        await one.until(lambda: len(one.sent) >= len(AWKWARD_ROOMS))
        await one.settled()
        assert one.sent == [((room,), room.encode()) for room in AWKWARD_ROOMS]


@_local
async def payloads_are_not_changed(make: MakeBackend) -> None:
    payloads = [b"", b"\n", b"1\n", b'{"a":"\\u0000"}', "größe 日本 🐦".encode(), b"x" * 200_000]
    async with _started(make) as [one]:
        await one.subscribe("a")
        for payload in payloads:
            await one.backend.send(["a"], payload)
        await one.until(lambda: len(one.sent) >= len(payloads))
        assert one.messages == payloads


@_local
async def concurrent_sends_all_arrive(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        await one.subscribe("a")
        await asyncio.gather(*(one.backend.send(["a"], b"%d" % n) for n in range(200)))
        await one.until(lambda: len(one.sent) >= 200)
        assert sorted(map(int, one.messages)) == list(range(200))


@_local
async def after_shutdown_nothing_is_left_and_nothing_is_taken(make: MakeBackend) -> None:
    before = asyncio.all_tasks()
    async with _started(make) as [one]:
        await one.subscribe("a")
        await one.backend.send(["a"], b"1")
    assert asyncio.all_tasks() <= before, asyncio.all_tasks() - before
    if isinstance(one.backend, StartableBackend):
        try:
            await one.backend.send(["a"], b"2")
        except BackendUnavailable:
            return
        raise AssertionError("a backend that was shut down swallowed a send")


@_local
async def can_be_started_again(make: MakeBackend) -> None:
    recorder = Recorder(make())
    for _ in range(2):
        await recorder.start()
        await recorder.subscribe("a")
        recorder.sent.clear()
        await recorder.backend.send(["a"], b"1")
        await recorder.until(lambda: bool(recorder.sent))
        await recorder.stop()
    assert recorder.messages == [b"1"]


@_distributed
async def every_instance_gets_it_once(make: MakeBackend) -> None:
    async with _started(make, 3) as instances:
        for instance in instances:
            await instance.subscribe("a", "b")
        await instances[0].backend.send(["a", "b"], b"1")
        await instances[1].backend.broadcast(b"2")
        for instance in instances:
            await instance.until(lambda instance=instance: bool(instance.sent) and bool(instance.broadcasts))  # type: ignore[misc]
            await instance.settled()
            assert instance.messages == [b"1"]
            assert instance.broadcasts[0] == b"2"


@_distributed
async def order_holds_for_each_room_and_sender(make: MakeBackend) -> None:
    async with _started(make, 3) as [one, two, reader]:
        await reader.subscribe("a")
        for n in range(100):
            await one.backend.send(["a"], b"one %d" % n)
            await two.backend.send(["a"], b"two %d" % n)
        await reader.until(lambda: len(reader.sent) >= 200)
        for sender in (b"one", b"two"):
            mine = [message for message in reader.messages if message.startswith(sender)]
            assert mine == [b"%s %d" % (sender, n) for n in range(100)]


@_distributed
async def only_subscribed_rooms_arrive(make: MakeBackend) -> None:
    async with _started(make, 2) as [one, two]:
        if not isinstance(two.backend, SubscribingBackend):
            return
        await two.subscribe("a", "b")
        await one.backend.send(["a"], b"1")
        await two.until(lambda: bool(two.sent))
        two.backend.unsubscribe(["a"])
        async with asyncio.timeout(_TIMEOUT_S):
            # It may take effect later; until then what comes is delivered to nobody.
            while True:
                two.sent.clear()
                await one.backend.send(["a"], b"2")
                await one.backend.send(["b"], b"3")
                await two.until(lambda: b"3" in two.messages)
                if two.messages == [b"3"]:
                    return


@_distributed
async def subscribing_again_at_once_misses_nothing(make: MakeBackend) -> None:
    async with _started(make, 2) as [one, two]:
        if not isinstance(two.backend, SubscribingBackend):
            return
        for n in range(20):
            await two.subscribe("a")
            await one.backend.send(["a"], b"%d" % n)
            await two.until(lambda n=n: len(two.sent) > n)  # type: ignore[misc]
            two.backend.unsubscribe(["a"])
        assert two.messages == [b"%d" % n for n in range(20)]


@_local
async def a_batch_is_sent_in_order(make: MakeBackend) -> None:
    async with _started(make) as [one]:
        if not isinstance(one.backend, BatchingBackend):
            return
        await one.subscribe("a", "b")
        await one.backend.send_many(
            [Publication(["a"], b"1", "i1"), Publication(["b", "a"], b"2", "i2"), Publication(["b"], b"3", "i3")]
        )
        await one.until(lambda: len(one.sent) >= 3)
        assert one.messages == [b"1", b"2", b"3"]


BACKEND_CONTRACT: list[Check] = [
    has_the_four_methods,
    a_send_comes_back_to_the_sender,
    a_broadcast_comes_back_to_the_sender,
    sends_stay_in_order,
    a_send_to_several_rooms_is_handed_over_once,
    room_names_are_literal,
    payloads_are_not_changed,
    concurrent_sends_all_arrive,
    after_shutdown_nothing_is_left_and_nothing_is_taken,
    can_be_started_again,
    every_instance_gets_it_once,
    order_holds_for_each_room_and_sender,
    only_subscribed_rooms_arrive,
    subscribing_again_at_once_misses_nothing,
    a_batch_is_sent_in_order,
]
"""Every check, in an order in which the first that fails says most."""
