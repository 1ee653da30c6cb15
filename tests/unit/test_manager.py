from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pydantic import field_serializer
from starlette.websockets import WebSocket

from jararaca_ws.backends.base import BroadcastFunc, GapFunc, SendFunc
from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.errors import (
    BackendUnavailable,
    BadRoom,
    ConfigurationError,
    ConnectionClosed,
    DuplicateMessageId,
    MessageIdUnset,
    MessageNotEncodable,
)
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.rooms import ALL_INSTANCES, is_instance
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import SUBPROTOCOL, encode
from tests.unit.played import Socket, serving, turns, until, until_closed


class News(WebSocketMessage):
    MESSAGE_ID = "test_manager.news"

    text: str = "hi"


class Counted(WebSocketMessage):
    """Counts how often it is encoded."""

    MESSAGE_ID = "test_manager.counted"

    n: int = 0

    @field_serializer("n")
    def _count(self, n: int) -> int:
        encoded.append(n)
        return n


encoded: list[int] = []


class SubscribingBackend(MemoryWebSocketConnectionBackend):
    """Carries only subscribed rooms, and confirms a subscription when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.all: set[str] = set()
        self.confirm = asyncio.Event()
        self.confirm.set()
        self.waiting = 0
        self.error: Exception | None = None
        self.report: GapFunc | None = None

    async def subscribe(self, rooms: Collection[str]) -> None:
        self.all.update(rooms)
        self.waiting += 1
        try:
            await self.confirm.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.waiting -= 1

    def unsubscribe(self, rooms: Collection[str]) -> None:
        self.all.difference_update(rooms)

    @property
    def subscriptions(self) -> set[str]:
        """Those that come and go: not the instance's own."""
        return {room for room in self.all if not is_instance(room) and room != ALL_INSTANCES}

    def on_gap(self, report: GapFunc) -> None:
        self.report = report

    async def send(self, rooms: list[str], message: bytes) -> None:
        if self.all.intersection(rooms):
            await super().send(rooms, message)


class FourMethods:
    """A user's backend: what the seed document asks for, and nothing else."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self.calls.append("configure")
        self._broadcast, self._send, self.shutdown_event = broadcast, send, shutdown_event

    async def broadcast(self, message: bytes) -> None:
        self.calls.append("broadcast")
        await self._broadcast(message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        self.calls.append("send")
        await self._send(rooms, message)

    async def shutdown(self) -> None:
        self.calls.append(f"shutdown, told before: {self.shutdown_event.is_set()}")


@asynccontextmanager
async def instance(
    backend: Any = None, settings: WebSocketSettings | None = None
) -> AsyncIterator[WebSocketConnectionManager]:
    async with WebSocketConnectionManager(
        MemoryWebSocketConnectionBackend() if backend is None else backend, settings=settings
    ) as manager:
        yield manager


class House:
    """A manager and as many sockets as a test wants."""

    def __init__(self, manager: WebSocketConnectionManager, stack: AsyncExitStack) -> None:
        self.manager = manager
        self._stack = stack

    async def socket(self, *rooms: str, v1: bool = False) -> Socket:
        socket = await self._stack.enter_async_context(
            serving(
                until_closed,
                manager=self.manager,
                settings=self.manager.settings,
                subprotocols=[SUBPROTOCOL] if v1 else [],
            )
        )
        await until(lambda: socket.connection in self.manager.connections)
        if rooms:
            await self.manager.join(rooms, socket.connection)
        return socket


@asynccontextmanager
async def house(backend: Any = None, settings: WebSocketSettings | None = None) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack, instance(backend, settings) as manager:
        yield House(manager, stack)


def texts(socket: Socket) -> list[str]:
    return [json.loads(frame)["message"]["text"] for frame in socket.server.frames]


SLIM = WebSocketSettings(
    max_queue_bytes=4 * (len(encode(News()).data) + Frame.OVERHEAD),
    write_timeout=timedelta(milliseconds=500),
    close_timeout=timedelta(milliseconds=10),
)


class TestSending:
    async def test_a_connection_in_two_target_rooms_gets_it_once(self):
        async with house() as it:
            both = await it.socket("a", "b")
            one = await it.socket("b")
            none = await it.socket("c")
            await it.manager.send(["a", "b", "a"], News())
            await until(lambda: texts(both) and texts(one))
            await turns()
            assert (texts(both), texts(one), texts(none)) == (["hi"], ["hi"], [])
            assert (it.manager.counters.sent, it.manager.counters.delivered) == (1, 2)

    async def test_messages_to_a_room_stay_in_order(self):
        async with house() as it:
            sockets = [await it.socket("a", "b") for _ in range(3)]
            for n in range(200):
                await it.manager.send(["ab"[n % 2]], News(text=str(n)))
                if n % 5 == 0:
                    await asyncio.sleep(0)
            await until(lambda: all(len(texts(socket)) == 200 for socket in sockets))
            for socket in sockets:
                assert texts(socket) == [str(n) for n in range(200)]

    @pytest.mark.parametrize("connections", [0, 1, 25])
    async def test_a_message_is_encoded_once_whatever_the_number_of_connections(self, connections: int):
        async with house() as it:
            sockets = [await it.socket("a", "b") for _ in range(connections)]
            encoded.clear()
            await it.manager.send(["a", "b"], Counted(n=1))
            await it.manager.broadcast(Counted(n=2))
            await until(lambda: all(len(socket.server.frames) == 2 for socket in sockets))
            assert encoded == [1, 2]
            assert len({id(frame) for socket in sockets for frame in socket.server.frames}) <= 2, "decoded once"

    async def test_broadcast_reaches_everybody_in_rooms_and_out(self):
        async with house() as it:
            sockets = [await it.socket(), await it.socket("a"), await it.socket("a", "b")]
            await it.manager.broadcast(News())
            await it.manager.broadcast('"größe"'.encode())
            await until(lambda: all(len(socket.server.frames) == 2 for socket in sockets))
            assert all(socket.server.frames[1] == '"größe"' for socket in sockets)

    async def test_broadcast_refuses_what_is_not_utf_8(self):
        async with house() as it:
            socket = await it.socket()
            with pytest.raises(UnicodeDecodeError):
                await it.manager.broadcast(b"\xff")
            await turns()
            assert socket.server.frames == []
            assert it.manager.counters.sent == 0

    @pytest.mark.parametrize(
        ("rooms", "message", "error"),
        [
            (["a", "b\n"], News(), BadRoom),
            ([], News(), BadRoom),
            ("a", News(), BadRoom),
            (["a"], WebSocketMessage(), MessageIdUnset),
            (["a"], News.model_construct(text="\ud800"), MessageNotEncodable),
            (["a"], News(text="x" * 2_000_000), MessageNotEncodable),
        ],
        ids=["bad room", "no room", "a string", "no id", "not encodable", "too large"],
    )
    async def test_a_bad_send_sends_nothing(self, rooms: Any, message: WebSocketMessage, error: type[Exception]):
        async with house() as it:
            socket = await it.socket("a")
            with pytest.raises(error):
                await it.manager.send(rooms, message)
            await it.manager.send(["a"], News(text="next"))
            await until(lambda: texts(socket))
            assert texts(socket) == ["next"]
            assert it.manager.counters.sent == 1

    @pytest.mark.parametrize("form", ["message", "bytes"])
    async def test_a_broadcast_that_no_queue_can_hold_is_refused_and_harms_nobody(self, form: str):
        async with house(settings=SLIM) as it:
            socket = await it.socket()
            socket.server.taking.clear()
            await it.manager.broadcast(News())
            await turns()
            await it.manager.broadcast(News())
            text = "x" * SLIM.max_queue_bytes
            with pytest.raises((MessageNotEncodable, ValueError), match="max_queue_bytes"):
                await it.manager.broadcast(News(text=text) if form == "message" else json.dumps(text).encode())
            assert socket.connection.alive

    async def test_what_the_backend_hands_over_that_is_not_text_is_dropped_and_counted(self):
        async with house() as it:
            socket = await it.socket("a")
            await it.manager.backend.send(["a"], b"\xff")
            await it.manager.backend.broadcast(b"\xff")
            await it.manager.send(["a"], News(text="next"))
            await until(lambda: texts(socket))
            assert texts(socket) == ["next"]
            assert it.manager.counters.dropped == 2

    async def test_an_error_of_the_backend_reaches_the_sender(self):
        class Down(MemoryWebSocketConnectionBackend):
            async def send(self, rooms: list[str], message: bytes) -> None:
                raise BackendUnavailable("it is down")

        async with house(Down()) as it:
            with pytest.raises(BackendUnavailable, match="it is down"):
                await it.manager.send(["a"], News())
            assert it.manager.counters.sent == 0

    async def test_f19_one_stalled_reader_delays_and_harms_no_other(self):
        async with house(settings=SLIM) as it:
            stalled, *others = [await it.socket("a") for _ in range(4)]
            stalled.server.taking.clear()
            for n in range(20):
                await it.manager.send(["a"], News(text=f"{n:02}"))
                await until(lambda n=n: all(len(texts(socket)) == n + 1 for socket in others), 1)
            await asyncio.wait_for(stalled.connection.closed.wait(), 5)
            assert stalled.connection.close_code == 4008
            assert it.manager.counters.overflows == 1
            assert stalled.connection not in it.manager.members("a")
            assert len(it.manager.members("a")) == 3


class TestRooms:
    async def test_empty_rooms_vanish(self):
        backend = SubscribingBackend()
        async with house(backend) as it:
            one, two = await it.socket("a", "b"), await it.socket("b")
            assert sorted(it.manager.rooms) == ["a", "b"]
            await it.manager.leave(["a"], one.connection)
            await it.manager.leave(["a", "nowhere"], one.connection)
            assert list(it.manager.rooms) == ["b"]
            two.server.disconnect()
            await two.ended()
            assert list(it.manager.rooms) == ["b"]
            one.server.disconnect()
            await one.ended()
            assert list(it.manager.rooms) == []
            assert len(it.manager.connections) == 0
            assert backend.subscriptions == set()

    async def test_who_has_left_gets_nothing_more(self):
        async with house() as it:
            socket = await it.socket("a", "b")
            await it.manager.leave(["a"], socket.connection)
            await it.manager.send(["a"], News(text="a"))
            await it.manager.send(["b"], News(text="b"))
            await until(lambda: texts(socket))
            assert texts(socket) == ["b"]

    async def test_joining_again_is_no_error(self):
        async with house(SubscribingBackend()) as it:
            socket = await it.socket("a", "a")
            await it.manager.join(["a"], socket.connection)
            assert list(it.manager.rooms_of(socket.connection)) == ["a"]
            await it.manager.send(["a"], News())
            await until(lambda: texts(socket))
            await turns()
            assert texts(socket) == ["hi"]

    async def test_remove_is_idempotent_and_does_not_close(self):
        async with house(SubscribingBackend()) as it:
            socket = await it.socket("a")
            for _ in range(3):
                await it.manager.remove_websocket(socket.connection)
            assert list(it.manager.rooms) == []
            assert socket.connection.alive
            await it.manager.broadcast(News())
            await turns()
            assert socket.server.frames == []
            await it.manager.join(["a"], socket.connection)
            await it.manager.send(["a"], News())
            await until(lambda: texts(socket))

    async def test_an_overflow_is_counted_once_however_often_the_socket_came_and_went(self):
        async with house(settings=SLIM) as it:
            socket = await it.socket("a")
            for _ in range(3):
                await it.manager.remove_websocket(socket.connection)
                await it.manager.add_websocket(socket.connection)
            socket.server.taking.clear()
            while socket.connection.alive:
                await it.manager.broadcast(News())
                await asyncio.sleep(0)
            await asyncio.wait_for(socket.connection.closed.wait(), 5)
            assert it.manager.counters.overflows == 1

    @pytest.mark.parametrize("bad", [["a", "b\x00"], [], "a"])
    async def test_a_bad_room_joins_and_leaves_nothing(self, bad: Any):
        async with house() as it:
            socket = await it.socket("a")
            with pytest.raises(BadRoom):
                await it.manager.join(bad, socket.connection)
            with pytest.raises(BadRoom):
                await it.manager.leave(bad, socket.connection)
            assert list(it.manager.rooms) == ["a"]

    async def test_joining_after_the_end_is_refused(self):
        backend = SubscribingBackend()
        async with house(backend) as it:
            socket = await it.socket("a")
            socket.server.disconnect()
            await socket.ended()
            for act in (it.manager.join(["a"], socket.connection), it.manager.add_websocket(socket.connection)):
                with pytest.raises(ConnectionClosed):
                    await act
            assert (list(it.manager.rooms), backend.subscriptions, len(it.manager.connections)) == ([], set(), 0)

    async def test_f26_a_disconnect_during_a_join_leaves_no_ghost(self):
        backend = SubscribingBackend()
        async with house(backend) as it:
            socket = await it.socket()
            backend.confirm.clear()
            joining = asyncio.create_task(it.manager.join(["a", "b"], socket.connection))
            await until(lambda: backend.waiting == 1)
            socket.server.disconnect()
            await socket.ended()
            backend.confirm.set()
            with pytest.raises(ConnectionClosed):
                await joining
            assert (list(it.manager.rooms), backend.subscriptions, len(it.manager.connections)) == ([], set(), 0)

    @pytest.mark.parametrize("way", ["error", "cancelled"])
    async def test_a_join_that_fails_is_undone_and_keeps_what_was_there_before(self, way: str):
        backend = SubscribingBackend()
        async with house(backend) as it:
            socket, other = await it.socket("a"), await it.socket("b")
            backend.confirm.clear()
            joining = asyncio.create_task(it.manager.join(["a", "b", "c"], socket.connection))
            await until(lambda: backend.waiting == 1)
            if way == "error":
                backend.error = BackendUnavailable("not confirmed")
                backend.confirm.set()
                with pytest.raises(BackendUnavailable):
                    await joining
            else:
                joining.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await joining
            assert list(it.manager.rooms_of(socket.connection)) == ["a"]
            assert list(it.manager.rooms_of(other.connection)) == ["b"]
            assert backend.subscriptions == {"a", "b"}

    async def test_a_join_that_fails_does_not_undo_another_one_that_succeeds(self):
        """Two tasks of one handler join one room; the first gives up. Whoever was told "joined" must be in the room."""
        backend = SubscribingBackend()
        async with house(backend) as it:
            socket = await it.socket()
            backend.confirm.clear()
            first = asyncio.create_task(it.manager.join(["a"], socket.connection))
            second = asyncio.create_task(it.manager.join(["a"], socket.connection))
            await until(lambda: backend.waiting == 2)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            backend.confirm.set()
            await second
            assert list(it.manager.rooms_of(socket.connection)) == ["a"]
            assert backend.subscriptions == {"a"}

    async def test_two_joins_of_one_room_that_both_fail_leave_nothing(self):
        backend = SubscribingBackend()
        async with house(backend) as it:
            socket = await it.socket()
            backend.confirm.clear()
            joins = [asyncio.create_task(it.manager.join(["a"], socket.connection)) for _ in range(2)]
            await until(lambda: backend.waiting == 2)
            for joining in joins:
                joining.cancel()
                await asyncio.gather(joining, return_exceptions=True)
            assert (list(it.manager.rooms), backend.subscriptions) == ([], set())

    async def test_what_is_sent_right_after_a_join_arrives_though_it_is_not_accepted_yet(self):
        """No message is missed between joining and accepting, and none comes before the accept."""
        sent = asyncio.Event()
        async with instance(SubscribingBackend()) as manager:

            async def handler(connection: WebSocketConnection) -> None:
                await connection.join("a")
                await manager.send(["a"], News(text="before the accept"))
                await turns()
                await connection.accept()
                await manager.send(["a"], News(text="after it"))
                sent.set()
                await until_closed(connection)

            async with serving(handler, manager=manager, accept=False) as socket:
                await asyncio.wait_for(sent.wait(), 5)
                await until(lambda: len(texts(socket)) == 2)
                assert socket.server.kinds == ["accept", "send", "send"]
                assert texts(socket) == ["before the accept", "after it"]

    @pytest.mark.parametrize("seed", range(3))
    async def test_f27_a_storm_of_joins_leaves_and_disconnects_keeps_the_invariant(self, seed: int):
        """sum(rooms) == live sockets, and subscriptions == non-empty rooms, after every step and at the end."""
        chance = random.Random(seed)
        rooms = [f"room-{n}" for n in range(8)]
        backend = SubscribingBackend()
        async with house(backend) as it:
            manager = it.manager
            sockets: list[Socket] = []
            pending: list[asyncio.Task[None]] = []
            for step in range(1500):
                action = chance.random()
                if action < 0.1 or not sockets:
                    sockets.append(await it.socket())
                elif action < 0.5:
                    joining = manager.join(chance.sample(rooms, 2), chance.choice(sockets).connection)
                    pending.append(asyncio.create_task(joining))
                elif action < 0.7:
                    await manager.leave(chance.sample(rooms, 2), chance.choice(sockets).connection)
                elif action < 0.76:
                    await manager.remove_websocket(chance.choice(sockets).connection)
                elif action < 0.84:
                    sockets.pop(chance.randrange(len(sockets))).server.disconnect()
                elif action < 0.9 and pending:
                    pending.pop(chance.randrange(len(pending))).cancel()
                elif action < 0.95:
                    (backend.confirm.clear if backend.confirm.is_set() else backend.confirm.set)()
                else:
                    await manager.send(chance.sample(rooms, 3), News())
                if step % 3 == 0:
                    await asyncio.sleep(0)
                self.check(manager, backend)
            backend.confirm.set()
            await asyncio.gather(*pending, return_exceptions=True)
            self.check(manager, backend)
            for socket in sockets:
                socket.server.disconnect()
                await socket.ended()
            self.check(manager, backend)
            assert (list(manager.rooms), len(manager.connections), backend.subscriptions) == ([], 0, set())

    @staticmethod
    def check(manager: WebSocketConnectionManager, backend: SubscribingBackend) -> None:
        memberships = Counter(member for room in manager.rooms for member in manager.members(room))
        assert all(member.alive and member in manager.connections for member in memberships)
        assert memberships == {
            connection: len(manager.rooms_of(connection))
            for connection in manager.connections
            if manager.rooms_of(connection)
        }
        assert backend.subscriptions == set(manager.rooms)


class TestGaps:
    async def test_a_gap_is_told_to_those_in_the_room_who_understand_it(self):
        backend = SubscribingBackend()
        async with house(backend) as it:
            v1, plain = await it.socket("a", v1=True), await it.socket("a")
            elsewhere = await it.socket("b", v1=True)
            assert backend.report is not None
            backend.report(["a", "nobody is here"], broadcasts=True)
            await until(lambda: len(v1.server.frames) == 2 and len(elsewhere.server.frames) == 1)
            await turns()
            assert [json.loads(frame) for frame in v1.server.frames] == [
                {"MESSAGE_ID": "jararaca.gap", "message": {"room": "a"}},
                {"MESSAGE_ID": "jararaca.gap", "message": {"room": None}},
            ]
            assert json.loads(elsewhere.server.frames[0])["message"] == {"room": None}
            assert plain.server.frames == []
            assert it.manager.counters.gaps == 1

    @pytest.mark.parametrize(
        ("offered", "chosen", "gaps"),
        [([], None, 0), (["jararaca.v1"], None, 1), (["other", "jararaca.v1"], "other", 0)],
        ids=["plain", "v1", "the application chose another"],
    )
    async def test_a_gap_between_a_join_and_the_accept_is_told_after_the_accept(
        self, offered: list[str], chosen: str | None, gaps: int
    ):
        backend = SubscribingBackend()
        may_accept = asyncio.Event()

        async def handler(connection: WebSocketConnection) -> None:
            await connection.join("a")
            await may_accept.wait()
            await connection.websocket.accept(subprotocol=chosen)
            await connection.closed.wait()

        async with WebSocketConnectionManager(backend) as manager:
            async with serving(handler, manager=manager, accept=False, subprotocols=offered) as socket:
                await until(lambda: "a" in manager.rooms and backend.subscriptions == {"a"})
                assert backend.report is not None
                backend.report(["a"], broadcasts=False)
                may_accept.set()
                await manager.send(["a"], News(text="after it"))
                await until(lambda: any("after it" in frame for frame in socket.server.frames))
                assert len(socket.server.frames) == 1 + gaps
                assert sum("jararaca.gap" in frame for frame in socket.server.frames) == gaps


class TestLife:
    async def test_stop_closes_everybody_and_leaves_no_task(self):
        before = asyncio.all_tasks()
        async with AsyncExitStack() as stack:
            manager = WebSocketConnectionManager(SubscribingBackend())
            await manager.start()
            it = House(manager, stack)
            sockets = [await it.socket("a") for _ in range(5)]
            await manager.send(["a"], News(text="last words"))
            await manager.stop()
            for socket in sockets:
                await socket.ended()
                assert socket.server.close == (1012, "service restart")
                assert texts(socket) == ["last words"], "what was queued is written before the close"
            assert len(manager.connections) == 0
            assert manager.rooms == ()
        assert asyncio.all_tasks() == before

    @pytest.mark.parametrize(
        ("subprotocols", "close"), [([], (1012, "service restart")), ([SUBPROTOCOL], (4001, "shutdown"))]
    )
    async def test_a_socket_that_was_accepted_when_the_end_had_begun_is_told_so(
        self, subprotocols: list[str], close: tuple[int, str]
    ):
        async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
            manager.draining = True
            async with serving(until_closed, manager=manager, subprotocols=subprotocols) as late:
                await late.ended()
                assert late.server.close == close
            assert len(manager.connections) == 0

    async def test_f16_stop_is_not_held_up_by_a_stalled_reader(self):
        settings = WebSocketSettings(write_timeout=timedelta(milliseconds=50), close_timeout=timedelta(milliseconds=20))
        async with AsyncExitStack() as stack:
            manager = WebSocketConnectionManager(MemoryWebSocketConnectionBackend(), settings=settings)
            await manager.start()
            it = House(manager, stack)
            stalled, healthy = await it.socket("a"), await it.socket("a")
            stalled.server.taking.clear()
            await manager.send(["a"], News())
            await asyncio.wait_for(manager.stop(), 5)
            assert stalled.connection.closed.is_set()
            assert healthy.server.close == (1012, "service restart")

    async def test_stop_is_not_held_up_by_a_handler_that_has_not_accepted_yet(self):
        async with AsyncExitStack() as stack:
            manager = WebSocketConnectionManager(MemoryWebSocketConnectionBackend())
            await manager.start()

            async def handler(connection: WebSocketConnection) -> None:
                await asyncio.Event().wait()

            socket = await stack.enter_async_context(serving(handler, manager=manager, accept=False))
            await until(lambda: socket.connection in manager.connections)
            await asyncio.wait_for(manager.stop(), 2)
            assert socket.connection.closed.is_set()
            assert socket.server.close == (1012, "")

    async def test_a_socket_that_arrives_while_the_manager_stops_is_not_left_open(self):
        async with AsyncExitStack() as stack:
            manager = WebSocketConnectionManager(MemoryWebSocketConnectionBackend())
            await manager.start()
            it = House(manager, stack)
            slow = await it.socket()
            late = await stack.enter_async_context(serving(until_closed))
            late.connection.bind(manager)
            slow.server.taking.clear()
            stopping = asyncio.create_task(manager.stop())
            await turns()
            try:
                await manager.join(["a"], late.connection)
            except ConnectionClosed:
                pass  # refusing it is as good as closing it
            else:
                slow.server.taking.set()
                await asyncio.wait_for(stopping, 5)
                assert not late.connection.alive
            slow.server.taking.set()
            await asyncio.wait_for(stopping, 5)
            assert len(manager.connections) == 0

    async def test_a_backend_with_the_four_methods_works_from_start_to_shutdown(self):
        backend = FourMethods()
        async with house(backend) as it:
            socket = await it.socket("a", "b")
            await it.manager.send(["a", "b"], News(text="1"))
            await it.manager.broadcast(News(text="2"))
            await until(lambda: len(texts(socket)) == 2)
            assert texts(socket) == ["1", "2"]
        assert backend.calls == ["configure", "send", "broadcast", "shutdown, told before: True"]

    async def test_after_the_stop_nothing_is_taken(self):
        async with instance() as manager:
            pass
        for send in (manager.send(["a"], News()), manager.broadcast(News())):
            with pytest.raises(BackendUnavailable, match="not running"):
                await send

    async def test_a_manager_can_be_started_again(self):
        backend = SubscribingBackend()
        manager = WebSocketConnectionManager(backend)
        for _ in range(2):
            async with AsyncExitStack() as stack, manager:
                socket = await House(manager, stack).socket("a")
                await manager.send(["a"], News())
                await until(lambda socket=socket: texts(socket) == ["hi"])
        assert backend.subscriptions == set()

    async def test_a_backend_that_does_not_start_is_shut_down(self):
        class Unreachable(FourMethods):
            async def start(self) -> None:
                raise BackendUnavailable("nobody is there")

        backend = Unreachable()
        with pytest.raises(BackendUnavailable):
            async with instance(backend):
                pytest.fail("it started")
        assert backend.calls == ["configure", "shutdown, told before: True"]

    async def test_duplicate_ids_stop_the_start_before_the_backend_is_touched(self, monkeypatch: pytest.MonkeyPatch):
        def refuse() -> None:
            raise DuplicateMessageId("x", News, Counted)

        monkeypatch.setattr("jararaca_ws.manager.check_message_ids", refuse)
        backend = FourMethods()
        with pytest.raises(DuplicateMessageId):
            async with instance(backend):
                pytest.fail("it started")
        assert backend.calls == []

    def test_what_is_no_backend_is_refused_at_once(self):
        with pytest.raises(ConfigurationError, match="a str is not a WebSocket backend"):
            WebSocketConnectionManager("redis://localhost")  # type: ignore[arg-type]

    async def test_a_socket_that_is_not_served_by_us_is_refused_with_a_cure(self):
        async with house() as it:
            foreign = WebSocket({"type": "websocket"}, lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
            calls: Iterable[Any] = (
                it.manager.add_websocket(foreign),
                it.manager.join(["a"], foreign),
                it.manager.remove_websocket(foreign),
            )
            for call in calls:
                with pytest.raises(ConfigurationError, match="@WebSocketEndpoint"):
                    await call

    async def test_an_instance_has_an_id_of_its_own(self):
        ids = {WebSocketConnectionManager(MemoryWebSocketConnectionBackend()).instance_id for _ in range(10)}
        assert len(ids) == 10
