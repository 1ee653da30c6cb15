"""Messages from publishers to handlers, on a broker that behaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from jararaca_ws.context import provide_bus
from jararaca_ws.errors import BrokerUnavailable, ConfigurationError, Unroutable
from jararaca_ws.interceptors.base import AppTransactionContext
from jararaca_ws.messagebus import MessageBusController, MessageHandler, MessageOf
from tests.rabbitmq.applications import QUICK, Broker, Pack, Placed
from tests.unit.messagebus.serving import until

pytestmark = pytest.mark.rabbitmq


async def test_an_event_reaches_each_handler_and_each_service_once(broker: Broker) -> None:
    seen: list[str] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def mail(self, message: Placed) -> None:
            seen.append("mail")

        @MessageHandler(Placed)
        async def count(self, message: MessageOf[Placed]) -> None:
            seen.append("count")

    async with (
        broker.worker(Orders, service="shop"),
        broker.worker(Orders, service="shop"),
        broker.worker(Orders, service="audit") as bus,
    ):
        for number in range(10):
            await bus.publish(Placed(number=number))
        await until(lambda: len(seen) >= 40)
    assert sorted(seen) == ["count"] * 20 + ["mail"] * 20


async def test_a_task_goes_to_exactly_one_of_two_workers(broker: Broker) -> None:
    seen: list[tuple[str, int]] = []

    def controller(worker: str) -> type:
        @MessageBusController()
        class Orders:
            @MessageHandler(Pack)
            async def pack(self, message: Pack) -> None:
                seen.append((worker, message.number))
                await asyncio.sleep(0)

        return Orders

    async with broker.worker(controller("a")), broker.worker(controller("b"), service="other") as bus:
        for number in range(50):
            await bus.publish(Pack(number=number))
        await until(lambda: len(seen) >= 50)
    assert sorted(number for _, number in seen) == list(range(50))
    assert {worker for worker, _ in seen} == {"a", "b"}


@pytest.mark.parametrize("prefetch", [1, 16])
async def test_500_messages_are_handled_in_order(broker: Broker, prefetch: int) -> None:
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    async with broker.worker(Orders, prefetch=prefetch) as bus:
        for number in range(500):
            await bus.publish(Placed(number=number))
        await until(lambda: len(seen) >= 500)
    assert seen == list(range(500))


async def test_concurrency_is_how_many_one_worker_handles_at_once(broker: Broker) -> None:
    both = asyncio.Barrier(3)
    most = running = 0

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, concurrency=3)
        async def pack(self, message: Pack) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await both.wait()
            running -= 1

    async with broker.worker(Orders) as bus:
        for _ in range(9):
            await bus.publish(Pack())
        await until(lambda: running == 0 and most == 3)
    assert most == 3


async def test_what_a_handler_stages_is_flushed_on_success_and_dropped_on_failure(broker: Broker) -> None:
    packed: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed, backoff=QUICK)
        async def placed(self, message: MessageOf[Placed]) -> None:
            await Pack(number=message.attempt).publish()
            if message.attempt == 1:
                raise ValueError("what it staged is dropped")

        @MessageHandler(Pack)
        async def pack(self, message: Pack) -> None:
            packed.append(message.number)

    async with broker.worker(Orders) as bus:
        with provide_bus(bus):
            await Placed().publish()
        await until(lambda: packed)
    assert packed == [2]


async def test_f39_a_message_is_acknowledged_only_after_the_flush(broker: Broker) -> None:
    """Interceptors flush after the handler has returned; one that fails there repeats the message."""
    attempts: list[int] = []

    class FailingFlush:
        @asynccontextmanager
        async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
            yield
            if len(attempts) < 3:
                raise ConnectionError("Redis is away")

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed, backoff=QUICK)
        async def placed(self, message: MessageOf[Placed]) -> None:
            attempts.append(message.attempt)

    async with broker.worker(Orders, interceptors=[FailingFlush()]) as bus:
        await bus.publish(Placed())
        await until(lambda: len(attempts) >= 3)
    assert attempts == [1, 2, 3]
    assert await broker.count("shop.Orders.placed") == 0


async def test_f33_a_failing_handler_is_retried_with_backoff_then_dead_lettered_with_the_reason(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, str]] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, max_attempts=3, backoff=QUICK)
        async def pack(self, message: MessageOf[Pack]) -> None:
            seen.append((message.attempt, message.message_id))
            raise ValueError("no stock")

    async with broker.worker(Orders) as bus:
        await bus.publish(Pack(number=5))
        letter = await broker.take("task.orders.pack.dead")
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert len({message_id for _, message_id in seen}) == 1
    assert letter.body == b'{"number":5}'
    assert letter.headers["x-jararaca-reason"] == "attempts_exhausted"
    assert letter.headers["x-jararaca-error-type"] == "ValueError"
    assert letter.headers["x-jararaca-attempts"] == 3
    assert letter.headers["x-jararaca-topic"] == "orders.pack"
    assert letter.headers["x-jararaca-message-id"] == seen[0][1]
    assert str(letter.headers["x-jararaca-error-id"]) in caplog.text
    assert "Traceback" not in str(letter.headers)
    assert letter.delivery_mode == 2
    assert await broker.count("task.orders.pack") == 0


async def test_a_retry_does_not_hold_up_what_comes_after_it(broker: Broker) -> None:
    seen: list[tuple[int, int]] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, backoff=QUICK)
        async def pack(self, message: MessageOf[Pack]) -> None:
            seen.append((message.payload().number, message.attempt))
            if seen == [(0, 1)]:
                raise ValueError("once")

    async with broker.worker(Orders) as bus:
        for number in range(3):
            await bus.publish(Pack(number=number))
        await until(lambda: len(seen) >= 4)
    assert seen == [(0, 1), (1, 1), (2, 1), (0, 2)]


async def test_a_delay_queue_that_was_deleted_is_made_again(broker: Broker) -> None:
    attempts: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, backoff=QUICK)
        async def pack(self, message: MessageOf[Pack]) -> None:
            attempts.append(message.attempt)
            if message.attempt < 3:
                async with broker.channel() as channel:
                    await channel.queue_delete(f"{broker.exchange}.task.orders.pack.delay.1")
                raise ValueError("again")

    async with broker.worker(Orders) as bus:
        await bus.publish(Pack())
        await until(lambda: len(attempts) >= 3)
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"number": "many"}', b"[" * 100_000])
async def test_f35_an_undecodable_body_goes_straight_to_the_dead_letters(broker: Broker, body: bytes) -> None:
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    async with broker.worker(Orders) as bus:
        await broker.publish_raw("orders.placed", body)
        await bus.publish(Placed(number=1))
        letter = await broker.take("shop.Orders.handle.dead")
        await until(lambda: seen)
    assert (letter.body, letter.headers["x-jararaca-reason"]) == (body, "undecodable")
    assert letter.headers["x-jararaca-attempts"] == 0
    assert seen == [1]


@pytest.mark.parametrize(
    "forged",
    [
        {"headers": {"x-jararaca-attempt": 99}},
        {"headers": {"x-jararaca-attempt": 0}},
        {"headers": {"x-jararaca-attempt": "1"}},
        {"headers": {"x-jararaca-attempt": [1]}},
        {"content_type": "application/x-python-pickle"},
        {"body": b'{"number": 1, "padding": "' + b"x" * 2_000 + b'"}'},
    ],
)
async def test_b35_b37_what_is_not_ours_goes_straight_to_the_dead_letters(
    broker: Broker, forged: dict[str, object]
) -> None:
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    async with broker.worker(Orders, max_message_bytes=1_000) as bus:
        await broker.publish_raw("orders.placed", **{"body": b"{}", **forged})  # type: ignore[arg-type]
        await bus.publish(Placed(number=1))
        letter = await broker.take("shop.Orders.handle.dead")
        await until(lambda: seen)
    assert letter.headers["x-jararaca-reason"] == "malformed"
    assert seen == [1]


async def test_f37_a_handler_that_hangs_is_cancelled_and_given_up(broker: Broker) -> None:
    done: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, timeout=timedelta(milliseconds=100), max_attempts=2, backoff=QUICK)
        async def pack(self, message: Pack) -> None:
            if message.number == 0:
                await asyncio.Future()
            done.append(message.number)

    async with broker.worker(Orders) as bus:
        await bus.publish(Pack(number=0))
        await bus.publish(Pack(number=1))
        letter = await broker.take("task.orders.pack.dead")
        await until(lambda: done)
    assert letter.headers["x-jararaca-error-type"] == "TimeoutError"
    assert letter.headers["x-jararaca-attempts"] == 2
    assert done == [1]


async def test_f41_a_message_for_which_there_is_no_queue_is_an_error(broker: Broker) -> None:
    async with broker.script() as bus:
        with pytest.raises(Unroutable, match=r"orders\.placed"):
            await bus.publish(Placed())


async def test_what_was_published_before_the_worker_came_back_is_handled(broker: Broker) -> None:
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    async with broker.worker(Orders):
        pass
    async with broker.script() as bus:
        await bus.publish(Placed(number=1))
    async with broker.worker(Orders):
        await until(lambda: seen)
    assert seen == [1]


async def test_f32_a_queue_with_other_arguments_is_refused_by_name_and_nobody_else_is_harmed(broker: Broker) -> None:
    seen: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    async with broker.worker(Orders, delivery_limit=5) as bus:
        with pytest.raises(
            ConfigurationError, match=rf"'{broker.exchange}\.shop\.Orders\.handle'.*x-delivery-limit.*5.*choose those"
        ):
            async with broker.worker(Orders, delivery_limit=6):
                pytest.fail("it started")
        await bus.publish(Placed(number=1))
        await until(lambda: seen)
    assert seen == [1]


async def test_an_exchange_of_another_type_is_refused_by_name(broker: Broker) -> None:
    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None: ...

    async with broker.channel() as channel:
        await channel.declare_exchange(broker.exchange, "fanout", durable=True)
    with pytest.raises(ConfigurationError, match=rf"the exchange '{broker.exchange}'.*type"):
        async with broker.worker(Orders):
            pytest.fail("it started")


@pytest.mark.parametrize(("change", "reason"), [("guest:wrong@", "ACCESS_REFUSED"), ("guest:guest@", "virtual host")])
async def test_an_address_that_the_broker_refuses_is_one_line(broker: Broker, change: str, reason: str) -> None:
    vhost = "nowhere" if reason == "virtual host" else ""
    wrong = Broker(broker.url.replace("guest:guest@", change) + vhost, broker.exchange)
    with pytest.raises(BrokerUnavailable, match=reason) as caught:
        await wrong.bus().start()
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)
