from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.flushing import TURN_BYTES, TickFlusher
from jararaca_ws.wire import frames
from jararaca_ws.wire.frames import PLAIN, Frame, WireForm, wire_form
from tests.unit.played import turns
from tests.unit.sockets.test_writing import Client, text

SETTINGS = WebSocketSettings(max_queue_bytes=8 * 1024 * 1024)


async def ready(flusher: TickFlusher, count: int) -> list[Client]:
    """Clients that have taken all that they were given, so that the flusher writes to them by itself."""
    clients = [Client(flusher, settings=SETTINGS) for _ in range(count)]
    await turns()
    assert all(client.connection.direct is not None for client in clients)
    return clients


def everyone(clients: list[Client]) -> tuple[Any, ...]:
    return tuple(client.connection for client in clients)


def wire(*frames: Frame) -> bytes:
    return b"".join(frame.wire() for frame in frames)


async def test_a_room_whose_members_keep_up_is_written_without_a_queue(monkeypatch: pytest.MonkeyPatch):
    flusher = TickFlusher()
    clients = await ready(flusher, 5)
    for client in clients:
        monkeypatch.setattr(client.connection, "queue", lambda _: pytest.fail("it was queued"))
    before = (flusher.ticks, flusher.writes, flusher.delivered)
    for frame in (text("a"), text("b")):
        flusher.deliver(frame, everyone(clients))
    assert all(client.frames.written == [] for client in clients)
    await asyncio.sleep(0)
    assert [client.frames.written for client in clients] == [[wire(text("a"), text("b"))]] * 5
    assert (flusher.ticks, flusher.writes, flusher.delivered) == (before[0] + 1, before[1] + 5, before[2] + 10)


async def test_rooms_that_overlap_are_one_write_for_each_connection():
    flusher = TickFlusher()
    one, both, other = await ready(flusher, 3)
    flusher.deliver(text("a"), everyone([one, both]))
    flusher.deliver(text("b"), everyone([both, other]))
    flusher.deliver(text("c"), everyone([one, both]))
    await asyncio.sleep(0)
    assert one.frames.written == [wire(text("a"), text("c"))]
    assert both.frames.written == [wire(text("a"), text("b"), text("c"))]
    assert other.frames.written == [wire(text("b"))]


async def test_what_is_sent_to_one_connection_comes_after_what_was_delivered_before():
    flusher = TickFlusher()
    first, second = await ready(flusher, 2)
    flusher.deliver(text("a"), everyone([first, second]))
    await first.connection.put(text("mine"))
    first.connection.enqueue(text("mine too"))
    flusher.deliver(text("b"), everyone([first, second]))
    await asyncio.sleep(0)
    assert first.frames.written == [wire(text("a"), text("mine"), text("mine too"), text("b"))]
    assert second.frames.written == [wire(text("a"), text("b"))]


async def test_what_was_delivered_is_written_before_the_close():
    flusher = TickFlusher()
    (client,) = await ready(flusher, 1)
    flusher.deliver(text("a"), everyone([client]))
    client.connection.begin_close(1000, "")
    await turns()
    assert client.frames.written == [wire(text("a"))]
    assert client.frames.closes == [(1000, "")]


async def test_nothing_is_written_to_who_has_gone_in_the_same_turn():
    flusher = TickFlusher()
    gone, stays = await ready(flusher, 2)
    flusher.deliver(text("a"), everyone([gone, stays]))
    gone.connection.finish(1006, "")
    await asyncio.sleep(0)
    assert gone.frames.written == []
    assert stays.frames.written == [wire(text("a"))]
    assert flusher.delivered == 1


async def test_nothing_is_written_to_a_transport_that_is_lost():
    flusher = TickFlusher()
    lost, stays = await ready(flusher, 2)
    flusher.deliver(text("a"), everyone([lost, stays]))
    lost.frames.aborts = 1  # from here on a write fails the test
    lost.frames.lost()
    await asyncio.sleep(0)
    assert lost.frames.written == []
    assert stays.frames.written == [wire(text("a"))]


async def test_a_transport_that_fills_up_in_the_turn_queues_the_rest():
    flusher = TickFlusher()
    full, other = await ready(flusher, 2)
    flusher.deliver(text("a"), everyone([full, other]))
    full.frames.pause()
    await asyncio.sleep(0)
    assert full.frames.written == []
    assert len(full.connection.outbound) == 1
    assert other.frames.written == [wire(text("a"))]
    full.frames.take_again()
    await asyncio.sleep(0)
    assert full.frames.written == [wire(text("a"))]
    await turns()
    assert full.connection.direct is not None, "it keeps up again"


@pytest.mark.parametrize("overlapping", [False, True])
async def test_of_frames_with_one_key_the_newest_of_the_turn_is_written(overlapping: bool):
    flusher = TickFlusher()
    clients = await ready(flusher, 3)
    for n in range(5):
        flusher.deliver(Frame(b"%d" % n, key="k"), everyone(clients[: 3 - (overlapping and n % 2)]))
        flusher.deliver(Frame(b"other %d" % n, key=f"k{n % 2}"), everyone(clients))
        flusher.deliver(Frame(b"plain"), everyone(clients))
    await asyncio.sleep(0)
    plain, newest = Frame(b"plain"), [Frame(b"4"), Frame(b"other 4")]
    expected = wire(plain, plain, plain, Frame(b"other 3"), plain, *newest, plain)
    assert [client.frames.written for client in clients] == [[expected]] * 3
    assert flusher.conflated == 3 * (4 + 3) - (2 if overlapping else 0)


async def test_more_than_a_turn_takes_is_written_at_once_and_held_nowhere():
    flusher = TickFlusher()
    (client,) = await ready(flusher, 1)
    frame = text("x", TURN_BYTES // 4)
    for _ in range(16):
        flusher.deliver(frame, everyone([client]))
    assert len(client.frames.written) == 4
    await asyncio.sleep(0)
    assert b"".join(client.frames.written) == wire(*[frame] * 16)


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.sets(st.integers(0, 3), min_size=1)),
        st.tuples(st.just("enqueue"), st.integers(0, 3)),
        st.tuples(st.just("put"), st.integers(0, 3)),
        st.tuples(st.just("pause"), st.integers(0, 3)),
        st.tuples(st.just("resume"), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(_steps)
def test_every_connection_gets_its_frames_once_and_in_order(steps: list[tuple[str, Any]]):
    async def play() -> None:
        flusher = TickFlusher()
        clients = await ready(flusher, 4)
        expected: list[list[Frame]] = [[] for _ in clients]
        for number, (step, who) in enumerate(steps):
            frame = text(f"{number};")
            if step == "deliver":
                flusher.deliver(frame, everyone([clients[n] for n in sorted(who)]))
                for n in who:
                    expected[n].append(frame)
            elif step in ("enqueue", "put"):
                if step == "put":
                    await clients[who].connection.put(frame)
                else:
                    clients[who].connection.enqueue(frame)
                expected[who].append(frame)
            elif step == "turn":
                await turns()
            elif step == "pause" and not clients[who].frames.full:
                clients[who].frames.pause()
            elif step == "resume" and clients[who].frames.full:
                clients[who].frames.take_again()
        for client in clients:
            if client.frames.full:
                client.frames.take_again()
        await turns()
        assert [b"".join(client.frames.written) for client in clients] == [wire(*frames) for frames in expected]

    asyncio.run(play())


async def test_those_who_speak_msgpack_get_it_and_it_is_packed_once(monkeypatch: pytest.MonkeyPatch):
    packed: list[bytes] = []
    pack = frames.pack
    monkeypatch.setattr(frames, "pack", lambda data: packed.append(data) or pack(data))
    flusher = TickFlusher()
    clients = await ready(flusher, 6)
    for client in clients[::2]:
        client.connection.form = wire_form(None, True)
    first, second = (Frame(b'{"n":%d}' % n) for n in range(2))
    for frame in (first, second):
        flusher.deliver(frame, everyone(clients))
    await asyncio.sleep(0)
    assert [client.frames.written for client in clients[1::2]] == [[wire(first, second)]] * 3
    assert [client.frames.written for client in clients[::2]] == [[wire(first.packed, second.packed)]] * 3
    assert packed == [first.data, second.data]


async def test_where_nobody_speaks_msgpack_nothing_is_packed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frames, "pack", lambda _: pytest.fail("it was packed"))
    flusher = TickFlusher()
    clients = await ready(flusher, 3)
    flusher.deliver(Frame(b"{}"), everyone(clients))
    await asyncio.sleep(0)
    assert [client.frames.written for client in clients] == [[wire(Frame(b"{}"))]] * 3


async def test_a_batch_is_joined_once_for_each_form_however_the_clients_are_mixed(monkeypatch: pytest.MonkeyPatch):
    joined: list[WireForm] = []
    wire_of = Frame.wire

    def counting(frame: Frame, form: WireForm) -> bytes:
        if not frame.binary:
            joined.append(form)
        return wire_of(frame, form)

    flusher = TickFlusher()
    clients = await ready(flusher, 8)
    for client in clients[::2]:
        client.connection.form = wire_form(None, True)
    monkeypatch.setattr(Frame, "wire", counting)
    batch = [Frame(b'{"n":%d}' % n) for n in range(5)]
    for frame in batch:
        flusher.deliver(frame, everyone(clients))
    await asyncio.sleep(0)
    assert joined == [wire_form(None, True)] * 5 + [PLAIN] * 5
