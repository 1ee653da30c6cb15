"""What happens to messages when the broker, the connection or the worker goes away."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta

import pytest

from jararaca_ws.errors import BrokerUnavailable
from jararaca_ws.messagebus import MessageBusController, MessageHandler, MessageOf
from tests.rabbitmq import poisoned
from tests.rabbitmq.applications import Broker, Pack, Placed
from tests.servers import RabbitMQServer
from tests.unit.messagebus.serving import until

pytestmark = pytest.mark.rabbitmq


@MessageBusController()
class Counting:
    seen: list[int]

    @MessageHandler(Placed)
    async def count(self, message: Placed) -> None:
        self.seen.append(message.number)


@pytest.fixture
def seen() -> list[int]:
    Counting.seen = seen = []
    return seen


async def test_f28_a_broker_killed_mid_handler_delivers_the_message_again(
    broker: Broker, rabbitmq_server: RabbitMQServer
) -> None:
    log: list[str] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack)
        async def pack(self, message: MessageOf[Pack]) -> None:
            log.append(f"begun {message.message_id}")
            await Placed().publish()
            if len(log) == 1:
                try:
                    await asyncio.Future()
                except asyncio.CancelledError:
                    log.append("cancelled")
                    raise
            log.append(f"done {message.message_id}")

        @MessageHandler(Placed)
        async def placed(self, message: Placed) -> None:
            log.append("placed")

    async with broker.worker(Orders) as bus:
        await bus.publish(Pack())
        await until(lambda: log)
        await broker.survives_a_kill()
        await asyncio.to_thread(rabbitmq_server.kill)
        await until(lambda: "cancelled" in log)
        assert not bus.healthy
        await asyncio.to_thread(rabbitmq_server.start)
        await until(lambda: "placed" in log)
        await until(lambda: bus.healthy)
    begun, cancelled, again, done, placed = log
    assert (begun, cancelled, placed) == (again, "cancelled", "placed")
    assert done.split()[1] == begun.split()[1]


async def test_f29_a_publish_in_an_outage_is_held_within_a_bound_then_refused(
    broker: Broker, rabbitmq_server: RabbitMQServer, seen: list[int]
) -> None:
    async with (
        broker.worker(Counting),
        broker.script(publish_timeout=timedelta(seconds=30), max_held=1) as patient,
        broker.script(publish_timeout=timedelta(seconds=0.4)) as hasty,
    ):
        await patient.publish(Placed(number=1))
        await broker.survives_a_kill()
        await asyncio.to_thread(rabbitmq_server.kill)
        held = asyncio.create_task(patient.publish(Placed(number=2)))
        before = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnavailable, match=r"not confirmed within 0\.4 s"):
            await hasty.publish(Placed(number=98))
        assert 0.3 < asyncio.get_running_loop().time() - before < 5
        with pytest.raises(BrokerUnavailable, match="1 publishes wait for it already"):
            await patient.publish(Placed(number=99))
        assert not held.done()
        await asyncio.to_thread(rabbitmq_server.start)
        await held
        await until(lambda: 2 in seen)
    assert set(seen) - {98} == {1, 2}


async def test_f30_after_all_connections_were_closed_consumers_and_publishers_are_back(
    broker: Broker, rabbitmq_server: RabbitMQServer, seen: list[int]
) -> None:
    async with broker.worker(Counting) as bus:
        await bus.publish(Placed(number=1))
        await until(lambda: seen == [1])
        await asyncio.to_thread(rabbitmq_server.ctl, "close_all_connections", "test")
        await bus.publish(Placed(number=2))
        await until(lambda: seen == [1, 2], timeout_s=6)
        await until(lambda: bus.healthy)


async def test_f31_a_queue_deleted_under_its_consumer_is_made_again(broker: Broker, seen: list[int]) -> None:
    name = f"{broker.exchange}.shop.Counting.count"
    async with broker.worker(Counting) as bus:
        consumer = bus._consumers[0]._consumer
        async with broker.channel() as channel:
            await channel.queue_delete(name)
        await until(lambda: bus._consumers[0]._consumer not in (None, consumer))
        await bus.publish(Placed(number=1))
        await until(lambda: seen == [1])


async def test_f34_a_message_that_kills_its_worker_is_stopped_and_takes_no_other_with_it(broker: Broker) -> None:
    async def run_a_worker() -> asyncio.subprocess.Process:
        argv = (sys.executable, "-m", poisoned.__name__, broker.url, broker.exchange)
        return await asyncio.create_subprocess_exec(*argv)

    seen: list[int] = []

    @MessageBusController()
    class Placing:
        @MessageHandler(Placed)
        async def placed(self, message: Placed) -> None:
            seen.append(message.number)

    deaths = 0
    async with broker.worker(Placing) as bus:
        process = await run_a_worker()
        try:
            while True:  # its queue is there once it consumes
                with suppress(Exception):
                    await bus.publish(Pack(number=13))
                    break
                await asyncio.sleep(0.05)
            for number in range(5):
                await bus.publish(Pack(number=number))
            while len(seen) < 5:
                with suppress(TimeoutError):
                    assert await asyncio.wait_for(process.wait(), 0.1) == poisoned.DIED
                    deaths += 1
                    process = await run_a_worker()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        letter = await broker.take("task.orders.pack.dead")
    assert deaths == 3  # a limit of 2 is two deliveries more than the first
    assert sorted(seen) == list(range(5))
    assert letter.body == b'{"number":13}'
    (death,) = letter.headers["x-death"]  # type: ignore[union-attr]
    assert death["reason"] == "delivery_limit"  # type: ignore[index, call-overload]
    assert await broker.count("task.orders.pack.dead") == 0


async def test_f38_a_stopped_worker_finishes_what_runs_and_gives_back_the_rest(broker: Broker) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, concurrency=2)
        async def pack(self, message: Pack) -> None:
            begun.set()
            if message.number == 0:
                await release.wait()
            if message.number == 1 and not release.is_set():
                await asyncio.Future()  # does not finish within the grace period
            done.append(message.number)

    async with broker.worker(Orders, grace_s=0.5, prefetch=4) as bus:
        for number in range(6):
            await bus.publish(Pack(number=number))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.2, release.set)
    assert done == [0]
    async with broker.worker(Orders):
        await until(lambda: len(done) >= 6)
    assert sorted(done) == list(range(6))
    assert await broker.count("task.orders.pack") == 0
    assert await broker.count("task.orders.pack.dead") == 0


async def test_f38_nothing_is_lost_while_workers_come_and_go(broker: Broker) -> None:
    done: list[int] = []

    @MessageBusController()
    class Orders:
        @MessageHandler(Pack, concurrency=4)
        async def pack(self, message: Pack) -> None:
            await asyncio.sleep(0.002)
            done.append(message.number)

    async with broker.worker(Orders):
        pass
    async with broker.script() as bus, asyncio.TaskGroup() as group:

        async def publish() -> None:
            for number in range(300):
                await bus.publish(Pack(number=number))

        publishing = group.create_task(publish())
        while not publishing.done() or len(done) < 300:
            before = len(done)
            async with broker.worker(Orders, prefetch=8):
                await until(lambda before=before: len(done) > before + 50 or len(done) >= 300)  # type: ignore[misc]
    assert sorted(done) == list(range(300))
    assert await broker.count("task.orders.pack") == 0


async def test_f40_in_a_memory_alarm_publishing_is_refused_in_time_and_consuming_goes_on(
    broker: Broker, rabbitmq_server: RabbitMQServer, seen: list[int]
) -> None:
    gate = asyncio.Event()

    @MessageBusController()
    class Orders:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            await gate.wait()
            seen.append(message.number)

    async with broker.worker(Orders, publish_timeout=timedelta(seconds=0.5), max_held=2) as bus:
        for number in range(5):
            await bus.publish(Placed(number=number))
        await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            for _ in range(2):
                with pytest.raises(BrokerUnavailable, match="not confirmed"):
                    await bus.publish(Placed(number=5))
            # Those two are on their way still: no more than `max_held` can be.
            with pytest.raises(BrokerUnavailable, match="2 publishes wait"):
                await bus.publish(Placed(number=5))
            gate.set()
            # Each but the first comes only after the acknowledgement of the one before.
            await until(lambda: len(seen) >= 5)
            await until(lambda: not bus.healthy)
        finally:
            await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.9")
        await until(lambda: bus.healthy)
        # Once the two that were on their way are confirmed there is room again.
        await until(lambda: len(seen) >= 7)
        await bus.publish(Placed(number=6))
        await until(lambda: 6 in seen)


async def test_a_stop_in_an_outage_ends(broker: Broker, rabbitmq_server: RabbitMQServer, seen: list[int]) -> None:
    before = asyncio.all_tasks()
    async with broker.worker(Counting):
        await asyncio.to_thread(rabbitmq_server.kill)
    await asyncio.to_thread(rabbitmq_server.start)
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_broker_that_does_not_answer_does_not_hold_up_a_stop(
    broker: Broker, rabbitmq_server: RabbitMQServer, seen: list[int]
) -> None:
    async with broker.worker(Counting, publish_timeout=timedelta(seconds=0.3), grace_s=1) as bus:
        await bus.publish(Placed(number=1))
        await until(lambda: seen)
        rabbitmq_server.pause()
        try:
            with pytest.raises(BrokerUnavailable, match="not confirmed"):
                await bus.publish(Placed(number=2))
            with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.3 s"):
                await broker.bus(connect_timeout=timedelta(seconds=0.3)).start()
            async with asyncio.timeout(10):
                await bus.stop()
        finally:
            rabbitmq_server.resume()
