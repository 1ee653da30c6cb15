"""Delivery policies: what a slow reader gets of messages that need not all arrive."""

from __future__ import annotations

import asyncio
import json
from typing import ClassVar

import pytest

from jararaca_ws import ConfigurationError, Delivery, MessageNotEncodable, WebSocketMessage, WebSocketSettings
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.delivery import ephemeral, header_of, latest, split
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.sockets.queues import OutboundQueue
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import encode
from tests.unit.played import Socket, serving, turns, until, until_closed


class Price(WebSocketMessage):
    MESSAGE_ID = "test_delivery.price"
    DELIVERY: ClassVar[Delivery] = latest(key="symbol")

    symbol: str
    value: int


class Cursor(WebSocketMessage):
    MESSAGE_ID = "test_delivery.cursor"
    DELIVERY: ClassVar[Delivery] = ephemeral(drop_oldest=True)

    n: int
    filling: str = "x" * 100


class Said(WebSocketMessage):
    MESSAGE_ID = "test_delivery.said"

    n: int


SLIM = WebSocketSettings(max_queue_bytes=2000)


def bodies(socket: Socket) -> list[dict[str, object]]:
    return [json.loads(frame)["message"] for frame in socket.server.frames]


async def test_a_slow_reader_gets_the_newest_of_each_key_and_nothing_else_is_lost():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        async with serving(until_closed, manager=manager, settings=SLIM) as slow:
            await manager.join(["a"], slow.connection)
            slow.server.taking.clear()
            await manager.send(["a"], Said(n=0))
            await until(lambda: slow.server.in_send)
            for n in range(1000):
                await manager.send(["a"], Price(symbol="A" if n % 2 else "B", value=n))
                if n == 500:
                    await manager.send(["a"], Said(n=1))
            slow.server.taking.set()
            await until(lambda: len(slow.server.frames) >= 4)
            await turns()
            assert bodies(slow) == [{"n": 0}, {"n": 1}, {"symbol": "B", "value": 998}, {"symbol": "A", "value": 999}]
            assert slow.connection.alive
    assert manager.counters.conflated == 998
    assert manager.counters.overflows == 0


async def test_a_reader_that_keeps_up_gets_every_value():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        async with serving(until_closed, manager=manager) as socket:
            await manager.join(["a"], socket.connection)
            for n in range(10):
                await manager.send(["a"], Price(symbol="A", value=n))
                await until(lambda n=n: len(socket.server.frames) == n + 1)
    assert [body["value"] for body in bodies(socket)] == list(range(10))


@pytest.mark.parametrize("v1", [True, False])
async def test_drop_oldest_keeps_the_newest_counts_and_tells_who_understands(v1: bool):
    subprotocols = ["jararaca.v1"] if v1 else []
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        async with serving(until_closed, manager=manager, settings=SLIM, subprotocols=subprotocols) as slow:
            await manager.join(["a"], slow.connection)
            slow.server.taking.clear()
            for n in range(200):
                await manager.send(["a"], Cursor(n=n))
                await asyncio.sleep(0)
            assert slow.connection.outbound.size <= SLIM.max_queue_bytes
            slow.server.taking.set()
            await until(lambda: any(body.get("n") == 199 for body in bodies(slow)))
            await turns()
            assert slow.connection.alive
    got = [body["n"] for body in bodies(slow) if "n" in body]
    told = sum(int(str(body["count"])) for body in bodies(slow) if "count" in body)
    evicted = manager.counters.evicted
    assert got == sorted(got), "what arrives is in order"
    assert evicted == 200 - len(got) > 0
    assert told == (evicted if v1 else 0)


async def test_a_message_that_may_not_be_dropped_still_closes_a_slow_reader():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        async with serving(until_closed, manager=manager, settings=SLIM) as slow:
            await manager.join(["a"], slow.connection)
            slow.server.taking.clear()
            for n in range(100):
                await manager.send(["a"], Said(n=n))
            await turns()
            assert not slow.connection.alive
            assert slow.connection.close_code == 4008


def frame(n: int, *, drop_oldest: bool = False, key: str | None = None) -> Frame:
    return Frame(b"%04d" % n, drop_oldest=drop_oldest, key=key)


def test_only_frames_that_may_be_dropped_make_room():
    size = frame(0).size
    queue = OutboundQueue(4 * size)
    assert all(queue.append(frame(n, drop_oldest=n % 2 == 1)) for n in range(4))
    assert queue.append(frame(5, drop_oldest=True))
    assert queue.append(frame(7, drop_oldest=True))
    assert [entry.data for entry in queue.take(10_000)] == [b"0000", b"0002", b"0005", b"0007"]
    assert (queue.evicted, queue.size, len(queue)) == (2, 0, 0)


def test_replaced_frames_do_not_pile_up():
    queue = OutboundQueue(100_000)
    for n in range(10_000):
        assert queue.append(frame(n, key="a"))
    assert len(queue) == 1
    assert len(queue._frames) < 100
    assert queue.size == frame(0).size
    assert [entry.data for entry in queue.take(10_000)] == [b"9999"]
    assert queue.append(frame(1, key="a"))
    assert queue.conflated == 9999


@pytest.mark.parametrize("take", [1, 200, 100_000])
def test_size_and_order_hold_through_any_mix(take: int):
    queue = OutboundQueue(100_000)
    for n in range(300):
        assert queue.append(frame(n, key=f"{n % 7}" if n % 3 else None))
    out = []
    while len(queue):
        out += queue.take(take)
    assert queue.size == 0
    plain = [entry.data for entry in out if entry.key is None]
    assert plain == [b"%04d" % n for n in range(0, 300, 3)]
    keyed = {entry.key: entry.data for entry in out if entry.key is not None}
    assert len(keyed) == len(out) - len(plain) == 7, "one of each key"
    assert sorted(keyed.values())[0] >= b"0280"


def test_the_key_is_part_of_what_travels_and_the_frame_is_not_changed():
    price = encode(Price(symbol="größe", value=1))
    again = Frame.of_payload(price.payload)
    assert (again.data, again.key, again.drop_oldest) == (price.data, "test_delivery.price:größe", False)
    said = encode(Said(n=1))
    assert said.payload == said.data, "the usual policy costs nothing"
    assert Frame.of_payload(encode(Cursor(n=1)).payload).drop_oldest


@pytest.mark.parametrize("data", [b"\x01", b"\x01[false,null]\n", b"\x01\n", b"x", b""])
def test_bytes_that_look_like_a_header_travel_as_they_are(data: bytes):
    assert split(header_of(False, None, data) + data) == (False, None, data)


@pytest.mark.parametrize("payload", [b"\x01", b"\x01{}\nx", b"\x01[1]\nx", b"\x01[false,7]\nx"])
def test_a_header_that_is_none_is_refused(payload: bytes):
    with pytest.raises(ValueError, match="header"):
        split(payload)


def test_a_key_that_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="field"):
        latest(key="no field")

    class Odd(WebSocketMessage):
        MESSAGE_ID = "test_delivery.odd"
        DELIVERY: ClassVar[Delivery] = latest(key="missing")

    with pytest.raises(MessageNotEncodable, match="missing"):
        encode(Odd())
    with pytest.raises(MessageNotEncodable, match="255"):
        encode(Price(symbol="x" * 256, value=1))
