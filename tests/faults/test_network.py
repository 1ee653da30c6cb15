"""Redis behind a network that fails: every loss falls into a reported gap, nothing comes twice or out of order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from jararaca_ws.backends.base import WebSocketConnectionBackend
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.testing import FaultProxy
from jararaca_ws.testing.backend_contract import Recorder
from tests.faults.history import History, Message, Promise
from tests.faults.test_redis import PROBE, accepted, make, poll, started
from tests.servers import RedisServer

pytestmark = pytest.mark.redis


def through(proxy: FaultProxy, **options: object) -> RedisWebSocketConnectionBackend:
    return RedisWebSocketConnectionBackend(
        f"redis://127.0.0.1:{proxy.port}/0",
        **{"probe_interval": PROBE, "connect_timeout": PROBE, "publish_timeout": PROBE, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("direction", [None, "to_server", "to_client"])
async def test_f5_a_network_that_swallows_everything_is_found_within_two_probe_intervals(
    redis_server: RedisServer, direction: None
):
    async with FaultProxy(redis_server.port) as proxy:
        backend = through(proxy)
        async with started(backend) as one:
            await one.subscribe("a")
            await poll(lambda: backend.healthy)
            proxy.blackhole(direction)
            swallowed = time.monotonic()
            await poll(lambda: not backend.healthy)
            # As for a frozen server: that it is bounded is what counts, redis-py alone waits for ever.
            assert time.monotonic() - swallowed < 2 * PROBE.total_seconds() + 1
            with pytest.raises(BackendUnavailable):
                await one.backend.send(["a"], b"during")
            assert one.gaps == []  # it is told when everything arrives again
            proxy.heal()
            await one.until(lambda: bool(one.gaps))
            await accepted(one, "a", b"after")
            await one.until(lambda: b"after" in one.messages)
            await poll(lambda: backend.healthy)


# --- a stream of sends, its history held against P1 -------------------------------------------------------------------


class Receiver(Recorder):
    """Writes down what it gets; ``since_s`` is when the fault began."""

    since_s = 0.0

    def __init__(self, backend: WebSocketConnectionBackend, history: History, name: str) -> None:
        super().__init__(backend)
        self.history = history
        self.name = name

    async def on_send(self, rooms: list[str], message: bytes) -> None:
        await super().on_send(rooms, message)
        room, sender, sequence = message.decode().split()
        self.history.received(self.name, Message(room, sender, int(sequence)))

    def on_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        super().on_gap(rooms, broadcasts=broadcasts)
        for room in rooms:
            self.history.gap(self.name, room, since_s=self.since_s)


@dataclass
class Sender:
    """Sends to two rooms by turns, one message after the other, until it is cancelled."""

    backend: RedisWebSocketConnectionBackend
    history: History
    name: str
    sent: int = 0

    async def run(self) -> None:
        while True:
            await self.send()
            await asyncio.sleep(0.002)

    async def send(self) -> None:
        room = "ab"[self.sent % 2]
        message = self.history.sending(room, self.name, self.sent)
        self.sent += 1
        try:
            await self.backend.send([room], f"{room} {self.name} {message.sequence}".encode())
        except BackendUnavailable:
            return  # nobody knows: it may arrive, and need not
        self.history.accepted(message)


async def kill_subscribers(server: RedisServer, proxy: FaultProxy) -> None:
    async with Redis.from_url(server.url) as client:
        await client.client_kill_filter(_type="pubsub")


async def restart(server: RedisServer, proxy: FaultProxy) -> None:
    await asyncio.to_thread(server.restart)


async def swallow_for_a_while(server: RedisServer, proxy: FaultProxy) -> None:
    proxy.blackhole()
    await asyncio.sleep(3 * PROBE.total_seconds())
    proxy.heal()


async def lose_replies_for_a_while(server: RedisServer, proxy: FaultProxy) -> None:
    proxy.drop_replies()
    await poll(lambda: proxy.lost_replies)
    proxy.heal()


async def delay(server: RedisServer, proxy: FaultProxy) -> None:
    proxy.delay(PROBE.total_seconds() / 10)


async def trickle(server: RedisServer, proxy: FaultProxy) -> None:
    proxy.trickle(200_000)


LOSING = [
    pytest.param(kill_subscribers, id="killed subscriber"),
    pytest.param(restart, id="restart"),
    pytest.param(swallow_for_a_while, id="black hole"),
    pytest.param(lambda server, proxy: proxy.cut(), id="cut"),
    pytest.param(lambda server, proxy: proxy.reset(), id="reset"),
    pytest.param(lose_replies_for_a_while, id="lost replies"),
]
SLOW = [delay, trickle]


async def run(server: RedisServer, proxy: FaultProxy, fault: Callable[..., object], *, loses: bool) -> None:
    """Two senders, two receivers: one of each has the fault between itself and Redis."""
    history = History()
    backends = [through(proxy), make(server)]
    senders = [Sender(backend, history, f"sender-{n}") for n, backend in enumerate(backends)]
    receivers = [Receiver(backend, history, f"receiver-{n}") for n, backend in enumerate(backends)]
    try:
        for receiver in receivers:
            await receiver.start()
            await receiver.subscribe("a", "b")
            for room in ("a", "b"):
                history.joined(receiver.name, room)
        sending = [asyncio.create_task(sender.run()) for sender in senders]
        await poll(lambda: history.receipts > 200)
        Receiver.since_s = time.monotonic()
        outcome = fault(server, proxy)
        if asyncio.iscoroutine(outcome):
            await outcome
        if loses:
            await receivers[0].until(lambda: bool(receivers[0].gaps))
            await poll(lambda: all(backend.healthy for backend in backends))
        before = history.receipts
        await poll(lambda: history.receipts > before + 200)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for n, sender in enumerate(senders):
            for room in ("a", "b"):  # what is on its way comes before these
                last = f"{room} last-{n} 0".encode()
                history.accepted(history.sending(room, f"last-{n}", 0))
                await sender.backend.send([room], last)
                for receiver in receivers:
                    await receiver.until(lambda last=last, receiver=receiver: last in receiver.messages)  # type: ignore[misc]
        history.verify(Promise.EPHEMERAL)
        assert loses or not any(receiver.gaps for receiver in receivers)
    finally:
        for receiver in receivers:
            await receiver.stop()


@pytest.mark.parametrize("fault", LOSING)
async def test_f2_every_loss_in_a_stream_falls_into_a_reported_gap(
    redis_server: RedisServer, fault: Callable[..., object]
):
    async with FaultProxy(redis_server.port) as proxy:
        await run(redis_server, proxy, fault, loses=True)


@pytest.mark.parametrize("fault", SLOW)
async def test_a_slow_network_loses_nothing(redis_server: RedisServer, fault: Callable[..., object]):
    async with FaultProxy(redis_server.port) as proxy:
        await run(redis_server, proxy, fault, loses=False)
