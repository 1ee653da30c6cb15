from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from starlette.exceptions import WebSocketException

from jararaca_ws.errors import ConnectionClosed
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.sockets.serving import _say_that_frames_leave_one_by_one
from jararaca_ws.sockets.socket_state import ConnectionState
from jararaca_ws.sockets.writing import DIRECT_FRAMES, DirectFrames, DirectWriter, TaskWriter
from jararaca_ws.wire.frames import Frame, wire_form
from jararaca_ws.wire.protocol import CloseCode
from tests.unit.played import FakeServer, Socket, errors_in, serving, turns, until, until_closed

SCOPE: dict[str, Any] = {"type": "websocket", "path": "/", "headers": []}
SETTINGS = WebSocketSettings(
    max_queue_bytes=4096, write_timeout=timedelta(seconds=0.05), close_timeout=timedelta(seconds=0.02)
)


class FakeFrames:
    """The transport of one socket, played by a test.

    Attributes:
        written: every write, in order; `closes` and `aborts` what else was asked for.
        on_close: what the server does once it has a close frame to write.
    """

    def __init__(self) -> None:
        self.full = False
        self.window_bits: int | None = None
        self.written: list[bytes] = []
        self.closes: list[tuple[int, str]] = []
        self.aborts = 0
        self.resume: Callable[[], None] | None = None
        self.stall: Callable[[], None] | None = None
        self.stop: Callable[[], None] | None = None
        self.on_close: Callable[[int], None] | None = None

    @property
    def accepts_frames(self) -> bool:
        return not (self.full or self.closes or self.aborts)

    def write_frames(self, data: bytes) -> None:
        assert not self.full, "it does not accept frames"
        assert not self.closes, "nothing may follow the close frame"
        assert not self.aborts, "the transport is gone"
        self.written.append(data)

    def close_frame(self, code: int, reason: str) -> None:
        assert not self.closes, "a socket is closed once"
        self.closes.append((code, reason))
        if self.on_close is not None:
            self.on_close(code)

    def abort(self) -> None:
        self.aborts += 1

    def on_writable(self, callback: Callable[[], None]) -> None:
        self.resume = callback

    def on_unwritable(self, callback: Callable[[], None]) -> None:
        self.stall = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        self.lost = callback

    def on_drain(self, callback: Callable[[], None]) -> None:
        self.stop = callback

    def pause(self) -> None:
        self.full = True
        assert self.stall is not None
        self.stall()

    def take_again(self) -> None:
        """The transport has become writable again."""
        self.full = False
        assert self.resume is not None
        self.resume()


class Client:
    """A connection and its writer on a transport that a test plays."""

    def __init__(
        self,
        flusher: TickFlusher,
        *,
        settings: WebSocketSettings = SETTINGS,
        accepted: bool = True,
        frames: FakeFrames | None = None,
    ) -> None:
        self.frames = frames or FakeFrames()
        direct: DirectFrames = self.frames  # what the type checker says about the double
        self.connection = WebSocketConnection(SCOPE, settings, flusher)
        self.writer = DirectWriter(self.connection, direct)
        self.connection.wake = self.writer.wake
        if accepted:
            self.connection.open(None)


def text(data: str, size: int = 0) -> Frame:
    return Frame(data.encode().ljust(size))


@pytest.fixture
def flusher() -> TickFlusher:
    return TickFlusher()


# one write for each tick ----------------------------------------------------------------------------------------------


async def test_frames_of_one_tick_leave_in_one_write(flusher: TickFlusher):
    client = Client(flusher)
    frames = [text(str(n)) for n in range(10)]
    for one in frames:
        client.connection.enqueue(one)
    assert client.frames.written == []
    await asyncio.sleep(0)
    assert client.frames.written == [b"".join(one.wire() for one in frames)]
    assert (flusher.ticks, flusher.writes) == (1, 1)


async def test_a_lone_message_leaves_in_the_same_turn_without_a_timer(flusher: TickFlusher, monkeypatch: Any):
    client = Client(flusher)
    await turns()
    loop = asyncio.get_running_loop()
    for timer in ("call_later", "call_at"):
        monkeypatch.setattr(loop, timer, lambda *_: pytest.fail("a timer"))
    client.connection.enqueue(text("a"))
    await asyncio.sleep(0)
    assert client.frames.written == [text("a").wire()]


async def test_many_connections_cost_one_callback_for_each_tick(flusher: TickFlusher, monkeypatch: Any):
    clients = [Client(flusher) for _ in range(100)]
    await turns()
    loop = asyncio.get_running_loop()
    calls = []
    call_soon = loop.call_soon
    monkeypatch.setattr(loop, "call_soon", lambda *call, **_: (calls.append(call), call_soon(*call))[1])
    for one in [text(str(n)) for n in range(5)]:
        for client in clients:
            client.connection.enqueue(one)
    assert len(calls) == 1
    monkeypatch.undo()
    await asyncio.sleep(0)
    assert [len(client.frames.written) for client in clients] == [1] * 100


async def test_the_frames_of_a_room_are_joined_once(flusher: TickFlusher):
    clients = [Client(flusher) for _ in range(10)]
    for one in [text("a"), text("b")]:
        for client in clients:
            client.connection.enqueue(one)
    await asyncio.sleep(0)
    first = clients[0].frames.written[0]
    assert all(client.frames.written[0] is first for client in clients)


async def test_what_is_equal_but_for_one_frame_is_not_shared(flusher: TickFlusher):
    clients = [Client(flusher) for _ in range(3)]
    shared = [text("a"), text("b")]
    for client in clients:
        for one in shared:
            client.connection.enqueue(one)
    clients[1].connection.enqueue(text("mine"))
    await asyncio.sleep(0)
    common = b"".join(one.wire() for one in shared)
    assert [client.frames.written for client in clients] == [[common], [common + text("mine").wire()], [common]]


async def test_each_window_gets_its_own_bytes(flusher: TickFlusher):
    clients = [Client(flusher) for _ in range(4)]
    windows = [None, 12, 9, 12]
    # It repeats itself farther back than 512 bytes: what a window of 9 bits forgets, one of 12 finds.
    one = text("".join(map(str, range(300))) * 2)
    for client, window in zip(clients, windows, strict=True):
        client.connection.form = wire_form(window, False)
        client.connection.enqueue(one)
    await asyncio.sleep(0)
    assert [client.frames.written for client in clients] == [[one.wire(wire_form(window, False))] for window in windows]
    assert len({tuple(client.frames.written) for client in clients}) == 3


async def test_what_was_joined_is_not_kept(flusher: TickFlusher):
    client = Client(flusher)

    class Weak(Frame):  # a Frame has no place for a weak reference
        pass

    one = Weak(b"x" * 100)
    gone = weakref.ref(one)
    client.connection.enqueue(one)
    await asyncio.sleep(0)
    assert len(client.frames.written) == 1
    del one
    gc.collect()
    assert gone() is None


async def test_a_long_queue_takes_turns():
    flusher = TickFlusher()
    settings = WebSocketSettings(max_queue_bytes=4 * 1024 * 1024)
    long, short = (Client(flusher, settings=settings) for _ in range(2))
    for n in range(40):
        long.connection.enqueue(text(str(n), 32 * 1024))
    short.connection.enqueue(text("short"))
    await asyncio.sleep(0)
    assert short.frames.written == [text("short").wire()]
    assert len(long.frames.written) == 1
    assert len(long.frames.written[0]) <= (128 + 33) * 1024
    await turns()
    assert len(long.frames.written) == 10
    assert b"".join(long.frames.written) == b"".join(text(str(n), 32 * 1024).wire() for n in range(40))


class Broken(FakeFrames):
    def write_frames(self, data: bytes) -> None:
        raise OSError("the transport says no")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("ready", [False, True])
async def test_a_write_that_fails_stops_nobody_else(ready: bool, place: int, flusher: TickFlusher):
    """One socket's failure is its own: the others of the tick are written, and go on to be written."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    broken = Broken()
    clients = [Client(flusher, frames=broken if n == place else None) for n in range(3)]
    if ready:  # the flusher writes by itself
        await turns()
    others = [client for client in clients if client is not clients[place]]
    for one in [text("a"), text("b")]:
        for client in clients:
            client.connection.enqueue(one)
        await turns()
    assert [client.frames.written for client in others] == [[text("a").wire(), text("b").wire()]] * 2
    assert broken.aborts, "what has lost frames is dropped, not left with a hole"


# before the handshake is answered, and at the end ---------------------------------------------------------------------


async def test_nothing_is_written_before_the_accept(flusher: TickFlusher):
    client = Client(flusher, accepted=False)
    client.connection.enqueue(text("early"))
    await turns()
    assert client.frames.written == []
    client.connection.open(None)
    await asyncio.sleep(0)
    assert client.frames.written == [text("early").wire()]


async def test_closed_before_the_accept(flusher: TickFlusher):
    client = Client(flusher, accepted=False)
    client.connection.enqueue(text("early"))
    client.connection.begin_close(CloseCode.SHUTDOWN, "shutdown")
    await turns()
    assert (client.frames.written, client.frames.closes) == ([], [])
    client.connection.open(None)
    await asyncio.sleep(0)
    assert client.frames.written == [text("early").wire()]
    assert client.frames.closes == [(4001, "shutdown")]


async def test_a_close_follows_what_is_queued(flusher: TickFlusher):
    settings = WebSocketSettings()
    client = Client(flusher, settings=settings)
    for n in range(20):
        client.connection.enqueue(text(str(n), 32 * 1024))
    client.connection.begin_close(1000, "bye")
    assert not client.connection.enqueue(text("late"))
    await turns()
    assert b"".join(client.frames.written) == b"".join(text(str(n), 32 * 1024).wire() for n in range(20))
    assert client.frames.closes == [(1000, "bye")]


async def test_nothing_is_written_after_the_close(flusher: TickFlusher):
    client = Client(flusher)
    client.connection.begin_close(1000, "")
    await turns()
    client.connection.outbound.append(text("smuggled"))
    client.writer.wake()
    client.frames.take_again()
    await turns()
    assert (client.frames.written, client.frames.closes) == ([], [(1000, "")])


async def test_nothing_is_written_once_the_peer_has_gone(flusher: TickFlusher):
    client = Client(flusher)
    client.connection.enqueue(text("a"))
    client.connection.finish(1006, "")  # between the enqueue and the end of the tick
    await turns()
    assert (client.frames.written, client.frames.closes, client.frames.aborts) == ([], [], 0)


async def test_gone_during_a_flush(flusher: TickFlusher):
    """The write of one connection closes another one that is still to be flushed in this tick."""
    first, second = Client(flusher), Client(flusher)
    write = first.frames.write_frames

    def write_and_finish(data: bytes) -> None:
        write(data)
        second.connection.finish(1006, "")

    first.frames.write_frames = write_and_finish  # type: ignore[method-assign]
    for client in (first, second):
        client.connection.enqueue(text("a"))
    await turns()
    assert len(first.frames.written) == 1
    assert second.frames.written == []


# a transport that is full ---------------------------------------------------------------------------------------------


async def test_a_full_transport_gets_nothing_and_then_everything(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    for name in ("a", "b"):
        client.connection.enqueue(text(name))
        await turns()
    assert client.frames.written == []
    client.frames.take_again()
    await asyncio.sleep(0)
    assert client.frames.written == [text("a").wire() + text("b").wire()]


async def test_a_full_transport_is_not_polled(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    client.connection.enqueue(text("a"))
    await turns()
    ticks = flusher.ticks
    await turns(50)
    assert flusher.ticks == ticks


async def test_a_transport_that_stays_full_ends_the_connection_with_4008(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    client.connection.enqueue(text("a"))
    await until(lambda: client.frames.closes)
    assert client.frames.closes == [(4008, "slow consumer")]
    assert client.connection.overflowed
    assert len(client.connection.outbound) == 0
    assert client.frames.aborts == 0, "the close frame has its chance"
    await until(lambda: client.frames.aborts)


async def test_what_was_written_last_can_stall_too(flusher: TickFlusher):
    """The write that fills the transport starts the clock, also where nothing follows it."""
    client = Client(flusher)
    write = client.frames.write_frames

    def fill(data: bytes) -> None:
        write(data)
        client.frames.pause()

    client.frames.write_frames = fill  # type: ignore[method-assign]
    client.connection.enqueue(text("a"))
    await until(lambda: client.frames.closes)
    assert client.frames.closes == [(4008, "slow consumer")]


async def test_a_transport_that_drains_in_time_is_no_slow_consumer(flusher: TickFlusher):
    client = Client(flusher)
    for _ in range(3):
        client.frames.pause()
        client.connection.enqueue(text("a"))
        await asyncio.sleep(SETTINGS.write_timeout.total_seconds() / 2)
        client.frames.take_again()
        await turns()
    await asyncio.sleep(SETTINGS.write_timeout.total_seconds() * 1.5)
    assert client.connection.state is ConnectionState.OPEN
    assert client.frames.written == [text("a").wire()] * 3


async def test_the_deadline_does_not_move_with_each_frame(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not client.frames.closes:
        assert loop.time() < began + 2
        client.connection.enqueue(text(""))
        await asyncio.sleep(0.001)
        if client.connection.outbound.size > 2000:
            client.connection.outbound.clear()
    assert client.frames.closes == [(4008, "slow consumer")]


async def test_an_overflow_ends_the_connection_at_once(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    while client.connection.enqueue(text("a", 500)):
        pass
    await asyncio.sleep(0)
    assert client.frames.written == []
    assert client.frames.closes == [(4008, "slow consumer")]
    await until(lambda: client.frames.aborts)
    await asyncio.sleep(SETTINGS.write_timeout.total_seconds() * 1.5)
    assert client.frames.aborts == 1


async def test_closing_with_a_queue_that_does_not_drain_is_aborted(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    client.connection.enqueue(text("a"))
    client.connection.begin_close(1000, "bye")
    await turns()
    assert client.frames.closes == []
    await until(lambda: client.frames.aborts)
    assert client.frames.written == []


async def test_closing_with_a_queue_that_drains(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    client.connection.enqueue(text("a"))
    client.connection.begin_close(1000, "bye")
    await turns()
    client.frames.take_again()
    await turns()
    assert client.frames.written == [text("a").wire()]
    assert client.frames.closes == [(1000, "bye")]
    await asyncio.sleep(SETTINGS.write_timeout.total_seconds() * 1.5)
    assert client.frames.aborts == 0


async def test_a_transport_that_drains_after_the_close_frame_is_not_aborted(flusher: TickFlusher):
    client = Client(flusher)
    client.frames.pause()
    client.connection.begin_close(1000, "bye")
    await turns()
    assert client.frames.closes == [(1000, "bye")]
    client.frames.take_again()
    await asyncio.sleep(SETTINGS.close_timeout.total_seconds() * 2)
    assert client.frames.aborts == 0


# served ---------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(handler: Any = until_closed, **options: Any) -> AsyncIterator[tuple[Socket, FakeFrames]]:
    """A connection from its handshake on; what uvicorn does with a close frame, `on_close` does."""
    frames = FakeFrames()
    async with serving(handler, settings=SETTINGS, extensions={DIRECT_FRAMES: frames}, **options) as socket:
        frames.on_close = socket.server.disconnect
        yield socket, frames


async def test_a_connection_that_is_written_directly_has_no_frames_through_asgi():
    async with served() as (socket, frames):
        socket.connection.enqueue(text("a"))
        await turns()
        assert frames.written == [text("a").wire()]
        assert socket.server.kinds == ["accept"]
        socket.connection.begin_close(4001, "shutdown")
        await socket.ended()
        assert frames.closes == [(4001, "shutdown")]
        assert socket.connection.close_code == 4001


async def test_a_stalled_socket_is_aborted_although_its_connection_is_over():
    """The server says disconnect as soon as the close frame is in its buffer: the connection is CLOSED then, and the
    transport still is full.
    """
    async with served() as (socket, frames):
        frames.pause()
        socket.connection.enqueue(text("a"))
        await socket.ended()
        assert frames.closes == [(4008, "slow consumer")]
        await until(lambda: frames.aborts, 1)


@pytest.mark.parametrize(("code", "reason"), [(1008, "x" * 200), (1005, ""), (1, "")])
async def test_a_close_that_rfc_6455_forbids_becomes_1011(code: int, reason: str, caplog: pytest.LogCaptureFixture):
    """From a handler's exception: a server would raise while it writes it, in the flush of everybody."""

    async def forbidden(connection: WebSocketConnection) -> None:
        raise WebSocketException(code, reason)

    async with served(forbidden) as (socket, frames):
        await socket.ended()
        assert len(frames.closes) == 1
        sent, why = frames.closes[0]
        assert sent in {code, 1011}
        assert sent not in {1005, 1}
        assert len(why.encode()) <= 123


async def test_cancelling_what_is_served_closes_with_1012_and_leaves_no_task():
    async with served() as (socket, frames):
        before = asyncio.all_tasks()
        socket.task.cancel()
        await asyncio.gather(socket.task, return_exceptions=True)
        assert socket.connection.state is ConnectionState.CLOSED
        assert asyncio.all_tasks() < before
        await turns()
        assert frames.written == []


async def test_tasks_of_a_connection():
    """Beside the handler's own: the pump."""
    before = asyncio.all_tasks()
    async with served() as (socket, _):
        mine = asyncio.all_tasks() - before - {socket.task}
        assert sorted(task.get_name().rsplit("-", 1)[0] for task in mine) == ["websocket-pump"]


# through ASGI ---------------------------------------------------------------------------------------------------------


async def test_the_task_writer_gives_the_same_frames_in_the_same_order():
    server = FakeServer()
    connection = WebSocketConnection(SCOPE, SETTINGS)
    writer = TaskWriter(connection, server.send)
    connection.wake = writer.wake
    writing = writer.start()
    for name in ("a", "b"):
        connection.enqueue(text(name))
    await turns()
    assert server.sent == []
    connection.open(None)
    connection.enqueue(Frame(b"\x00", binary=True))
    connection.begin_close(1000, "bye")
    await writing
    assert server.frames == ["a", "b", b"\x00"]
    assert server.close == (1000, "bye")
    assert server.most_in_send == 1
    assert connection.state is ConnectionState.CLOSED


async def test_a_server_that_raises_ends_the_connection_quietly(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    server = FakeServer()
    server.vanished = True
    connection = WebSocketConnection(SCOPE, SETTINGS)
    writer = TaskWriter(connection, server.send)
    connection.wake = writer.wake
    writing = writer.start()
    connection.open(None)
    connection.enqueue(text("a"))
    await writing
    assert connection.close_code == 1006
    assert errors_in(caplog) == []


async def test_a_server_that_takes_no_frames_is_told_of_once(caplog: pytest.LogCaptureFixture):
    _say_that_frames_leave_one_by_one.cache_clear()
    caplog.set_level(logging.INFO, logger="jararaca_ws")
    for _ in range(2):
        async with serving(until_closed):
            pass
    lines = [record.getMessage() for record in caplog.records if "one by one" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]


# replies that the handler's own task writes ---------------------------------------------------------------------------


async def test_replies_and_what_comes_from_rooms_keep_one_order_and_one_send():
    async def handler(connection: WebSocketConnection) -> None:
        for number in range(0, 30, 3):
            connection.enqueue(text(f"{number}"))
            await connection.reply(text(f"{number + 1}"))
            replying = asyncio.create_task(connection.reply(text(f"{number + 2}")))
            await turns(number % 4)
            await replying
        await connection.closed.wait()

    async with serving(handler) as socket:
        await until(lambda: len(socket.server.frames) == 30)
        assert socket.server.frames == [str(number) for number in range(30)]
        assert socket.server.most_in_send == 1


async def test_what_is_queued_while_a_reply_is_written_follows_and_so_does_the_close():
    async with serving(until_closed) as socket:
        connection, server = socket.connection, socket.server
        server.taking.clear()
        replying = asyncio.create_task(connection.reply(text("reply")))
        await until(lambda: server.in_send)
        connection.enqueue(text("room"))
        connection.begin_close(4400, "done")
        await turns()
        assert server.most_in_send == 1  # the writer waits for the reply
        server.taking.set()
        await replying
        await socket.ended()
    assert server.frames == ["reply", "room"]
    assert server.close == (4400, "done")
    assert server.most_in_send == 1


async def test_replies_at_once_are_written_one_after_the_other():
    async with serving(until_closed) as socket:
        connection, server = socket.connection, socket.server
        server.taking.clear()
        replying = [asyncio.create_task(connection.reply(text(f"{number}"))) for number in range(3)]
        await until(lambda: server.in_send)
        await turns()
        assert server.most_in_send == 1
        server.taking.set()
        await asyncio.gather(*replying)
        await until(lambda: len(server.frames) == 3)
        assert server.frames == ["0", "1", "2"]
        assert server.most_in_send == 1


async def test_a_client_that_does_not_take_a_reply_is_a_slow_consumer():
    async with serving(until_closed, settings=SETTINGS) as socket:
        socket.server.taking.clear()
        await socket.connection.reply(text("reply"))
        assert socket.connection.close_code == CloseCode.SLOW_CONSUMER
        await asyncio.sleep(0)  # whoever replied is cancelled no more
        socket.server.taking.set()
        await socket.ended()
    assert socket.server.close == (CloseCode.SLOW_CONSUMER, "slow consumer")


async def test_a_reply_to_a_client_that_has_gone_ends_the_connection():
    async with serving(until_closed) as socket:
        socket.server.vanished = True
        await socket.connection.reply(text("reply"))
        assert socket.connection.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionClosed):
            await socket.connection.reply(text("another"))


async def test_a_cancelled_reply_leaves_the_writer_at_work():
    async with serving(until_closed) as socket:
        socket.server.taking.clear()
        replying = asyncio.create_task(socket.connection.reply(text("reply")))
        await until(lambda: socket.server.in_send)
        socket.connection.enqueue(text("room"))
        replying.cancel()
        await asyncio.gather(replying, return_exceptions=True)
        socket.server.taking.set()
        await until(lambda: socket.server.frames == ["room"])
