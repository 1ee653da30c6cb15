from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.context import provide_bus
from jararaca_ws.errors import BrokerUnavailable, Unroutable
from jararaca_ws.interceptors.base import AppTransactionContext
from jararaca_ws.messagebus import MemoryMessageBus, Message, MessageBusController, MessageHandler, MessageOf
from jararaca_ws.messagebus.publisher import MessageBus
from jararaca_ws.supervision import Backoff
from tests.unit.messagebus.serving import fast_bus, serving, until


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"

    number: int = 0


class Pack(Message):
    MESSAGE_TOPIC = "orders.pack"
    MESSAGE_TYPE = "task"

    number: int = 0


@pytest.fixture
def seen() -> list[Any]:
    Events.seen = seen = []
    return seen


@MessageBusController()
class Events:
    seen: list[Any]

    @MessageHandler(Placed)
    async def first(self, message: MessageOf[Placed]) -> None:
        self.seen.append(("first", message.payload().number))

    @MessageHandler(Placed)
    async def second(self, message: Placed) -> None:
        self.seen.append(("second", message.number))


def test_it_is_a_message_bus() -> None:
    assert isinstance(MemoryMessageBus(), MessageBus)
    assert MemoryMessageBus().embedded


async def test_an_event_reaches_each_of_its_handlers_in_order(seen: list[Any]) -> None:
    async with serving(Events) as bus:
        for number in range(500):
            await bus.publish(Placed(number=number))
        await bus.join()
    for name in ("first", "second"):
        assert [number for handler, number in seen if handler == name] == list(range(500))


async def test_later_changes_to_the_object_change_nothing_and_handlers_do_not_share_it(seen: list[Any]) -> None:
    @MessageBusController()
    class Changing:
        @MessageHandler(Placed)
        async def change(self, message: Placed) -> None:
            message.number += 100
            seen.append(message.number)

        @MessageHandler(Placed)
        async def look(self, message: Placed) -> None:
            seen.append(message.number)

    async with serving(Changing) as bus:
        message = Placed(number=1)
        await bus.publish(message)
        message.number = 7
        await bus.join()
    assert sorted(seen) == [1, 101]


async def test_f41_a_topic_that_nobody_handles_is_unroutable(seen: list[Any]) -> None:
    async with serving(Events) as bus:
        with pytest.raises(Unroutable, match=r"the topic 'orders\.pack'"):
            await bus.publish(Pack())


async def test_f33_a_failing_handler_is_retried_then_given_up_with_the_reason(seen: list[Any]) -> None:
    @MessageBusController()
    class Failing:
        @MessageHandler(Pack, max_attempts=3)
        async def pack(self, message: MessageOf[Pack]) -> None:
            seen.append((message.attempt, message.message_id))
            raise ValueError("no stock")

    async with serving(Failing) as bus:
        await bus.publish(Pack(number=5))
        await bus.join()
        (letter,) = bus.dead_letters
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({message_id for _, message_id in seen}) == 1
    assert (letter.dead.reason, letter.dead.error_type, letter.dead.attempts) == ("attempts_exhausted", "ValueError", 3)
    assert letter.attempt.body == b'{"number":5}'
    assert letter.handler.topic == "orders.pack"


async def test_a_retried_message_goes_behind_the_others_and_succeeds(seen: list[Any]) -> None:
    @MessageBusController()
    class Flaky:
        @MessageHandler(Pack)
        async def pack(self, message: MessageOf[Pack]) -> None:
            seen.append((message.payload().number, message.attempt))
            if message.payload().number == 0 and message.attempt == 1:
                raise ValueError("once")

    async with serving(Flaky) as bus:
        for number in range(3):
            await bus.publish(Pack(number=number))
        await bus.join()
        assert not bus.dead_letters
    assert seen == [(0, 1), (1, 1), (2, 1), (0, 2)]


async def test_the_delay_of_a_retry_is_the_handlers_backoff(seen: list[Any]) -> None:
    @MessageBusController()
    class Slow:
        @MessageHandler(Pack, backoff=Backoff(first_s=0.2, factor=1))
        async def pack(self, message: MessageOf[Pack]) -> None:
            seen.append(asyncio.get_running_loop().time())
            if message.attempt == 1:
                raise ValueError("once")

    async with serving(Slow, bus=MemoryMessageBus()) as bus:
        await bus.publish(Pack())
        await bus.join()
    assert 0.019 <= seen[1] - seen[0] <= 5


async def test_the_dead_letters_are_bounded_and_the_oldest_goes() -> None:
    @MessageBusController()
    class Failing:
        @MessageHandler(Pack, max_attempts=1)
        async def pack(self, message: Pack) -> None:
            raise ValueError("no stock")

    async with serving(Failing, bus=fast_bus(max_dead_letters=2)) as bus:
        for number in range(3):
            await bus.publish(Pack(number=number))
        await bus.join()
        assert [letter.attempt.body for letter in bus.dead_letters] == [b'{"number":1}', b'{"number":2}']


async def test_a_full_queue_is_an_error_to_the_publisher_and_no_handler_gets_half() -> None:
    release = asyncio.Event()
    seen: list[str] = []

    @MessageBusController()
    class Blocked:
        @MessageHandler(Placed)
        async def slow(self, message: Placed) -> None:
            await release.wait()

        @MessageHandler(Placed)
        async def quick(self, message: Placed) -> None:
            seen.append("quick")

    async with serving(Blocked, bus=fast_bus(max_queued=2)) as bus:
        await bus.publish(Placed())
        await bus.publish(Placed())
        with pytest.raises(BrokerUnavailable, match=r"2 messages wait for .*Blocked\.slow already"):
            await bus.publish(Placed())
        release.set()
        await bus.join()
        await bus.publish(Placed())
        await bus.join()
    assert seen == ["quick"] * 3


async def test_concurrency_runs_several_at_once_and_one_is_the_default() -> None:
    counts = {"serial": [0, 0], "parallel": [0, 0]}
    all_begun = asyncio.Event()

    async def count(name: str, wait: bool) -> None:
        now = counts[name]
        now[0] += 1
        now[1] = max(now)
        if now[0] == 3:
            all_begun.set()
        await (all_begun.wait() if wait else asyncio.sleep(0))
        now[0] -= 1

    @MessageBusController()
    class Counting:
        @MessageHandler(Placed)
        async def serial(self, message: Placed) -> None:
            await count("serial", wait=False)

        @MessageHandler(Placed, concurrency=3)
        async def parallel(self, message: Placed) -> None:
            await count("parallel", wait=True)

    async with serving(Counting) as bus:
        for _ in range(6):
            await bus.publish(Placed())
        await bus.join()
    assert (counts["serial"][1], counts["parallel"][1]) == (1, 3)


@MessageBusController()
class Held:
    """Runs until it is released."""

    begun: asyncio.Event
    release: asyncio.Event
    done: list[int]

    @classmethod
    def prepare(cls) -> None:
        cls.begun, cls.release, cls.done = asyncio.Event(), asyncio.Event(), []

    @MessageHandler(Pack)
    async def pack(self, message: Pack) -> None:
        self.begun.set()
        await self.release.wait()
        self.done.append(message.number)


async def test_f38_a_stop_lets_the_running_handler_finish_and_starts_no_other(caplog: pytest.LogCaptureFixture) -> None:
    Held.prepare()
    async with serving(Held) as bus:
        for number in range(3):
            await bus.publish(Pack(number=number))
        await Held.begun.wait()
        asyncio.get_running_loop().call_later(0.05, Held.release.set)
    assert Held.done == [0]
    assert "2 messages that were not handled yet are lost" in caplog.text


async def test_f38_what_is_cancelled_after_the_grace_goes_back_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    Held.prepare()
    bus = fast_bus()
    async with serving(Held, bus=bus, grace_s=0.01):
        for number in range(3):
            await bus.publish(Pack(number=number))
        await Held.begun.wait()
        await bus.stop_consuming(timedelta(milliseconds=10))
        assert Held.done == []
        assert "did not finish within 0.0 s and is cancelled" in caplog.text
        Held.release.set()
        again = bus._queues["Held.pack"]
        await bus.consume([again.handler], again._dispatch, service="shop")
        await bus.join()
    assert Held.done == [0, 1, 2]


async def test_f38_what_comes_during_the_grace_waits() -> None:
    Held.prepare()
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, concurrency=2)
        async def pack(self, message: Pack) -> None:
            seen.append(message.number)
            Held.begun.set()
            await Held.release.wait()

    bus = fast_bus()
    async with serving(Orders, bus=bus):
        await bus.publish(Pack(number=0))
        await Held.begun.wait()
        stopping = asyncio.create_task(bus.stop_consuming(timedelta(seconds=5)))
        await asyncio.sleep(0)
        await bus.publish(Pack(number=1))
        asyncio.get_running_loop().call_later(0.05, Held.release.set)
        await stopping
        assert seen == [0]
        queue = bus._queues["Orders.pack"]
        await bus.consume([queue.handler], queue._dispatch, service="shop")
        await bus.join()
    assert seen == [0, 1]


async def test_a_delayed_retry_survives_stop_consuming() -> None:
    attempts: list[int] = []

    @MessageBusController()
    class Flaky:
        @MessageHandler(Pack, backoff=Backoff(first_s=1000))
        async def pack(self, message: MessageOf[Pack]) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise ValueError("once")

    bus = MemoryMessageBus()
    async with serving(Flaky, bus=bus):
        await bus.publish(Pack())
        queue = bus._queues["Flaky.pack"]
        await until(lambda: queue._delayed)
        await bus.stop_consuming(timedelta(seconds=1))
        await bus.consume([queue.handler], queue._dispatch, service="shop")
        await bus.join()
    assert attempts == [1, 2]


async def test_what_a_handler_publishes_is_staged_and_join_waits_for_it() -> None:
    seen: list[tuple[str, int]] = []

    @MessageBusController()
    class Chain:
        @MessageHandler(Placed)
        async def placed(self, message: MessageOf[Placed]) -> None:
            await Pack(number=message.attempt).publish()
            await Pack(number=10 + message.attempt).publish_now()
            seen.append(("placed", message.attempt))
            if message.attempt == 1:
                raise ValueError("what it staged is dropped")

        @MessageHandler(Pack)
        async def pack(self, message: Pack) -> None:
            seen.append(("pack", message.number))

    async with serving(Chain) as bus:
        with provide_bus(bus):
            await Placed().publish()
        await bus.join()
    assert [number for name, number in seen if name == "pack"] == [11, 12, 2]


async def test_a_flush_that_fails_is_retried_and_the_bus_message_leaves_once() -> None:
    packed: list[int] = []
    failures = iter([True, False])

    class FailingFlush:
        @asynccontextmanager
        async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
            yield
            if app_context.handler.__name__ == "placed" and next(failures):
                raise ConnectionError("the other flush failed")

    @MessageBusController()
    class Chain:
        @MessageHandler(Placed)
        async def placed(self, message: MessageOf[Placed]) -> None:
            await Pack(number=message.attempt).publish()

        @MessageHandler(Pack)
        async def pack(self, message: Pack) -> None:
            packed.append(message.number)

    async with serving(Chain, interceptors=(FailingFlush(),)) as bus:
        await bus.publish(Placed())
        await bus.join()
    assert packed == [2]


async def test_the_same_bus_serves_a_second_time(seen: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    bus = fast_bus()
    for number in range(2):
        async with serving(Events, bus=bus):
            await bus.publish(Placed(number=number))
            await bus.join()
    assert sorted(seen) == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with serving(Events):
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before
