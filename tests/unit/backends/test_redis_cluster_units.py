"""What of the cluster's parts hangs on an unlucky moment: here the moment is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import MovedError, ResponseError, TryAgainError

from jararaca_ws.backends.redis_cluster import ClusterPipeline, ClusterSubscriber, ShardedChannels
from jararaca_ws.backends.redis_keys import Keys
from jararaca_ws.backends.redis_link import Link, Server
from jararaca_ws.backends.redis_pipeline import RedisPipeline, Request
from jararaca_ws.backends.redis_topology import Address, Topology
from jararaca_ws.errors import BackendUnavailable

TIMEOUT = timedelta(seconds=5)
OLD: Address = ("old", 1)
NEW: Address = ("new", 2)


class FakeTopology:
    """Says what the test wants, and what it was told."""

    def __init__(self) -> None:
        self.owners: dict[int, Address] = {}
        self.default: Address | None = OLD
        self.troubles: list[BaseException | None] = []
        self.settle: Any = None

    def on_change(self, settle: Any) -> None:
        self.settle = settle

    def owner(self, slot: int) -> Address | None:
        return self.owners.get(slot, self.default)

    def trouble(self, error: BaseException | None = None) -> None:
        self.troubles.append(error)

    @property
    def masters(self) -> set[Address]:
        return {OLD, NEW}

    @property
    def links(self) -> dict[Address, Link]:
        return {address: FakeLink(address) for address in self.masters}  # type: ignore[misc]


class FakeConnection:
    """Answers each command as the script says; the rest with its last word."""

    def __init__(self, answer: Callable[[tuple[Any, ...]], Any]) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self._answer = answer
        self._unread: list[tuple[Any, ...]] = []

    def pack_commands(self, commands: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return commands

    async def send_packed_command(self, commands: list[tuple[Any, ...]], check_health: bool) -> None:
        self.sent += commands
        self._unread += commands

    async def read_response(self) -> Any:
        await asyncio.sleep(0)
        reply = self._answer(self._unread.pop(0))
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def can_read(self) -> bool:
        return False

    async def can_read_destructive(self) -> bool:
        return False

    async def disconnect(self, nowait: bool) -> None: ...


class FakeLink:
    def __init__(
        self, address: Address, answer: Callable[[tuple[Any, ...]], Any] = lambda command: command[-1]
    ) -> None:
        self.address = address
        self.connection = FakeConnection(answer)

    async def open(self) -> FakeConnection:
        return self.connection

    async def server(self, connection: FakeConnection) -> Server:
        return Server()


def spublish(channel: str, payload: str) -> tuple[str, bytes, str]:
    return ("SPUBLISH", channel.encode(), payload)


class TestNames:
    @given(st.text())
    def test_a_room_has_one_sharded_channel_in_the_slot_of_its_keys(self, room: str):
        channels, keys = ShardedChannels("send", "all"), Keys("prefix")
        assert channels.room(channels.of(room)) == room
        if room:  # `{}` is no hash tag, and the empty room is none
            assert key_slot(channels.of(room)) == key_slot(keys.meta(room)) == key_slot(keys.entries(room))


class TestPipelineOfANode:
    async def test_what_belongs_elsewhere_is_handed_back_with_all_that_came_for_its_slot(self):
        handed: list[Request] = []
        done: list[str] = []

        def answer(command: tuple[Any, ...]) -> Any:
            payload = command[-1]
            if payload == "1 moved":  # while it is read, more comes
                for late in (request("2 late", 7), request("late, another slot", 8)):
                    pipeline.enqueue(late)
                return MovedError("7 new:2")
            done.append(payload)
            return 0

        def request(payload: str, slot: int) -> Request:
            return Request([spublish("a", payload)], 1, 5, slot)

        link = FakeLink(OLD, answer)
        pipeline = RedisPipeline(
            link,  # type: ignore[arg-type]
            name="test",
            timeout=TIMEOUT,
            max_pending_bytes=100,
            hand_back=lambda requests, error: handed.extend(requests),
        )
        pipeline.start()
        pipeline.enqueue(request("1 moved", 7))
        pipeline.enqueue(request("another slot", 8))
        async with asyncio.timeout(5):
            while "late, another slot" not in done:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert [one.commands[0][-1] for one in handed] == ["1 moved", "2 late"]
        assert done == ["another slot", "late, another slot"]
        assert not any(one.done.done() for one in handed)
        await pipeline.stop()

    async def test_without_other_nodes_moved_is_a_refusal(self):
        link = FakeLink(OLD, lambda command: TryAgainError("later") if command[-1] == "x" else 0)
        pipeline = RedisPipeline(link, name="test", timeout=TIMEOUT, max_pending_bytes=100)  # type: ignore[arg-type]
        pipeline.start()
        with pytest.raises(BackendUnavailable, match="later"):
            await pipeline.execute([spublish("a", "x")])
        assert await pipeline.execute([spublish("a", "y")]) == [0]
        await pipeline.stop()


@pytest.fixture
def topology() -> FakeTopology:
    return FakeTopology()


class TestClusterPipeline:
    @pytest.fixture
    def published(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Address, str]]]:
        """Where each payload went, in order."""
        published: list[tuple[Address, str]] = []

        class Node:
            full = False
            idle = True
            pipelines = pending_bytes = 0

            def __init__(self, link: FakeLink, **_: Any) -> None:
                self.address = link.address

            def start(self) -> None: ...

            async def stop(self) -> None: ...

            def enqueue(self, request: Request) -> None:
                published.extend((self.address, command[-1]) for command in request.commands)  # type: ignore[misc]
                request.replies = [command[-1] for command in request.commands]
                request.answer()

        monkeypatch.setattr("jararaca_ws.backends.redis_cluster.RedisPipeline", Node)
        return published

    def make(self, topology: FakeTopology, **options: Any) -> ClusterPipeline:
        settings = {"timeout": TIMEOUT, "max_pending_bytes": 100, **options}
        pipeline = ClusterPipeline(topology, name="test", **settings)  # type: ignore[arg-type]
        pipeline.start()
        return pipeline

    async def test_what_has_no_node_waits_and_keeps_its_order(self, topology: FakeTopology, published: list[Any]):
        topology.default = None
        pipeline = self.make(topology)
        first = asyncio.create_task(pipeline.execute([spublish("a", "1")]))
        await asyncio.sleep(0)
        topology.default = NEW  # known again, and nobody has been told
        second = asyncio.create_task(pipeline.execute([spublish("a", "2")]))
        other = asyncio.create_task(pipeline.execute([spublish("b", "other")]))
        await other
        assert published == [(NEW, "other")]
        await topology.settle(None)
        assert await first == ["1"]
        assert await second == ["2"]
        assert published == [(NEW, "other"), (NEW, "1"), (NEW, "2")]
        assert topology.troubles

    async def test_replies_come_in_the_order_of_the_commands(self, topology: FakeTopology, published: list[Any]):
        topology.owners = {key_slot(b"b"): NEW}
        pipeline = self.make(topology)
        commands = [spublish("a", "1"), spublish("b", "2"), spublish("a", "3"), spublish("c", "4")]
        assert await pipeline.execute(commands) == ["1", "2", "3", "4"]
        assert published == [(OLD, "1"), (OLD, "3"), (NEW, "2"), (OLD, "4")]
        assert await pipeline.execute([]) == []

    async def test_what_waits_too_long_fails_with_the_reason(self, topology: FakeTopology, published: list[Any]):
        topology.default = None
        pipeline = self.make(topology, timeout=timedelta(milliseconds=1))
        waiting = asyncio.create_task(pipeline.execute([spublish("a", "1")]))
        await asyncio.sleep(0.01)
        await topology.settle(BackendUnavailable("all nodes are away"))
        with pytest.raises(BackendUnavailable, match="all nodes are away"):
            await waiting

    async def test_a_failure_to_ask_gives_up_nothing_too_soon(self, topology: FakeTopology, published: list[Any]):
        topology.default = None
        pipeline = self.make(topology)
        waiting = asyncio.create_task(pipeline.execute([spublish("a", "1")]))
        await asyncio.sleep(0)
        await topology.settle(BackendUnavailable("all nodes are away"))
        topology.default = OLD
        await topology.settle(None)
        assert await waiting == ["1"]

    async def test_what_waits_is_bounded_and_fails_at_the_end(self, topology: FakeTopology, published: list[Any]):
        topology.default = None
        pipeline = self.make(topology, max_pending_bytes=10)
        waiting = asyncio.create_task(pipeline.execute([spublish("a", "1")], size=8))
        await asyncio.sleep(0)
        with pytest.raises(BackendUnavailable, match="max_pending_bytes"):
            await pipeline.execute([spublish("a", "2")], size=8)
        await pipeline.stop()
        with pytest.raises(BackendUnavailable, match="shut down"):
            await waiting
        with pytest.raises(BackendUnavailable, match="not running"):
            await pipeline.execute([spublish("a", "3")])


class FakeSubscriber:
    """A node's subscriber, which confirms when the test says so."""

    def __init__(self, link: FakeLink, *, on_trouble: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.confirmations: dict[bytes, asyncio.Future[None]] = {}
        self.confirmed: set[bytes] = set()
        self.healthy, self.lag_s, self.restarts, self.problem = True, 0.5, 1, None

    def start(self) -> None: ...

    async def stop(self) -> None:
        self.calls.append(("stop",))

    def want(self, channels: Collection[bytes]) -> list[asyncio.Future[None]]:
        loop = asyncio.get_running_loop()
        new = [channel for channel in channels if channel not in self.confirmed]
        return [self.confirmations.setdefault(channel, loop.create_future()) for channel in new]

    def confirm(self, channel: bytes) -> None:
        self.confirmed.add(channel)
        self.confirmations.pop(channel).set_result(None)

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        self.calls.append(("unsubscribe", set(channels)))
        for channel in channels:
            if channel in self.confirmations:
                self.confirmations.pop(channel).set_result(None)

    def abandon(self, channels: Collection[bytes]) -> set[bytes]:
        self.calls.append(("abandon", set(channels)))
        missed = self.confirmed & set(channels)
        for channel in channels:
            if channel in self.confirmations:
                self.confirmations.pop(channel).set_result(None)
        return missed

    def adopt(self, channels: Collection[bytes], missed: Collection[bytes]) -> None:
        self.calls.append(("adopt", set(channels), set(missed)))

    def resume(self) -> None:
        self.calls.append(("resume",))


class TestClusterSubscriber:
    @pytest.fixture
    def made(self) -> dict[Address, FakeSubscriber]:
        return {}

    @pytest.fixture
    def subscriber(self, topology: FakeTopology, made: dict[Address, FakeSubscriber]) -> ClusterSubscriber:
        def make(link: FakeLink, **options: Any) -> FakeSubscriber:
            made[link.address] = FakeSubscriber(link, **options)
            return made[link.address]

        return ClusterSubscriber(topology, make, timedelta(milliseconds=200))  # type: ignore[arg-type]

    async def test_a_channel_that_moves_while_it_is_subscribed_is_confirmed_by_its_new_node(
        self, topology: FakeTopology, made: dict[Address, FakeSubscriber], subscriber: ClusterSubscriber
    ):
        subscribing = asyncio.create_task(subscriber.subscribe([b"a", b"b"]))
        await asyncio.sleep(0)
        made[OLD].confirm(b"b")
        topology.owners = {key_slot(b"a"): NEW}
        await topology.settle(None)
        assert ("abandon", {b"a"}) in made[OLD].calls
        assert ("adopt", {b"a"}, set()) in made[NEW].calls
        await asyncio.sleep(0.01)
        assert not subscribing.done()
        made[NEW].confirm(b"a")
        await subscribing
        assert (subscriber.healthy, subscriber.lag_s, subscriber.restarts) == (True, 0.5, 2)

    async def test_a_channel_that_nobody_wants_any_more_is_not_waited_for(
        self, made: dict[Address, FakeSubscriber], subscriber: ClusterSubscriber
    ):
        subscribing = asyncio.create_task(subscriber.subscribe([b"a"]))
        await asyncio.sleep(0)
        subscriber.unsubscribe([b"a", b"never"])
        await subscribing
        assert made[OLD].calls == [("unsubscribe", {b"a"})]

    async def test_a_channel_that_was_put_out_and_has_no_other_node_is_asked_for_again(
        self, topology: FakeTopology, made: dict[Address, FakeSubscriber], subscriber: ClusterSubscriber
    ):
        subscribing = asyncio.create_task(subscriber.subscribe([b"a"]))
        await asyncio.sleep(0)
        made[OLD].confirm(b"a")
        await subscribing
        await topology.settle(None)
        assert made[OLD].calls == [("resume",)]
        await topology.settle(BackendUnavailable("all nodes are away"))
        assert made[OLD].calls == [("resume",)]

    async def test_without_a_node_or_a_confirmation_it_is_refused(
        self, topology: FakeTopology, subscriber: ClusterSubscriber
    ):
        with pytest.raises(BackendUnavailable, match="confirm"):
            await subscriber.subscribe([b"a"])
        topology.default = None
        with pytest.raises(BackendUnavailable, match="no node"):
            await subscriber.subscribe([b"b"])
        assert topology.troubles == [None]
        await subscriber.stop()


class TestTopology:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Address]:
        """Who was asked; only the second and the fourth node answer."""
        asked: list[Address] = []

        async def ask(self: Topology, link: Link) -> list[Any]:
            asked.append(link.address)
            if link.address[1] in (1, 3):
                raise BackendUnavailable("away")
            return [[0, 100, [b"10.0.0.9", 9, b"id"]], [101, 16383, [None, 8, b"id"], [b"replica", 7, b"id"]]]

        monkeypatch.setattr(Topology, "_ask", ask)
        return asked

    @pytest.fixture
    def topology(self, asked: list[Address]) -> Topology:
        nodes = [ClusterNode(f"10.0.0.{n}", n) for n in (1, 2, 3)]
        return Topology(RedisCluster(startup_nodes=nodes), TIMEOUT)

    async def test_one_node_after_another_is_asked_until_one_answers(self, topology: Topology, asked: list[Address]):
        await topology.refresh()
        assert asked == [("10.0.0.1", 1), ("10.0.0.2", 2)]
        # A node without a name of its own is where it was reached.
        assert [topology.owner(slot) for slot in (0, 100, 101)] == [("10.0.0.9", 9)] * 2 + [("10.0.0.2", 8)]
        assert set(topology.links) == topology.masters == {("10.0.0.9", 9), ("10.0.0.2", 8)}

    async def test_who_was_sent_somewhere_asks_there_first(self, topology: Topology, asked: list[Address]):
        topology.trouble(MovedError("7 10.0.0.4:4"))
        await topology.refresh()
        await topology.refresh()
        assert asked[0] == ("10.0.0.4", 4)
        assert ("10.0.0.4", 4) not in asked[1:]

    async def test_when_none_answers_that_is_an_error(self, topology: Topology, monkeypatch: pytest.MonkeyPatch):
        async def away(self: Topology, link: Link) -> list[Any]:
            raise BackendUnavailable(f"{link.address[1]} is away")

        monkeypatch.setattr(Topology, "_ask", away)
        with pytest.raises(BackendUnavailable, match="3 is away"):
            await topology.start()
        await topology.stop()

    async def test_trouble_is_answered_by_asking_again_and_telling_all(self, topology: Topology):
        told: asyncio.Queue[BackendUnavailable | None] = asyncio.Queue()
        topology.on_change(told.put)
        await topology.start()
        topology.trouble(ResponseError("whatever"))
        async with asyncio.timeout(5):
            assert await told.get() is None
        await topology.stop()
