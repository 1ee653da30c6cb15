"""What of the RabbitMQ bus needs no RabbitMQ; the rest is in tests/rabbitmq."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from jararaca_ws.errors import BrokerUnavailable, ConfigurationError, InvalidMessage
from jararaca_ws.messagebus import Message, MessageBus, MessageBusController, MessageHandler, RabbitMQMessageBus
from jararaca_ws.messagebus.controllers import HandlerSpec, collect_handlers
from jararaca_ws.messagebus.rabbitmq_connection import broker_url
from jararaca_ws.messagebus.rabbitmq_consuming import read
from jararaca_ws.messagebus.rabbitmq_topology import WorkQueue, work_queue
from tests.servers.process import free_port

URL = "amqp://guest:secret@127.0.0.1:5672/"


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"


def spec(message_type: type[Message] = Placed, **options: Any) -> HandlerSpec:
    @MessageBusController()
    class Orders:
        @MessageHandler(message_type, **options)
        async def handle(self, message: Message) -> None: ...

    (handler,) = collect_handlers([Orders])
    return handler


def incoming(**changes: Any) -> Any:
    message = {"body": b"{}", "content_type": "application/json", "headers": {}, "message_id": "m1"}
    return SimpleNamespace(**{**message, **changes})


def test_it_is_a_message_bus() -> None:
    bus = RabbitMQMessageBus(URL)
    assert isinstance(bus, MessageBus)
    assert not bus.embedded
    assert not bus.healthy


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1", "amqp://", "http://u:secret@h/", "amqp://h:port/", 7, None])
def test_a_wrong_address_is_refused_without_being_repeated(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="RabbitMQ address") as caught:
        RabbitMQMessageBus(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch": 0},
        {"max_held": 0},
        {"delivery_limit": -1},
        {"exchange": ""},
        {"exchange": "amq.topic"},
        {"exchange": "a b"},
    ],
)
def test_options_that_cannot_work_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        RabbitMQMessageBus(URL, **options)


def test_the_heartbeat_is_ours_unless_the_address_says_otherwise() -> None:
    assert broker_url(URL).query["heartbeat"] == "30"
    assert broker_url(f"{URL}?heartbeat=5").query["heartbeat"] == "5"


async def test_a_broker_that_is_not_there_is_one_line_without_the_password() -> None:
    port = free_port()
    bus = RabbitMQMessageBus(f"amqp://guest:secret@127.0.0.1:{port}/")
    with pytest.raises(BrokerUnavailable, match=rf"127\.0\.0\.1:{port}: .*Connect call failed") as caught:
        await bus.start()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    await bus.stop()


async def test_publishing_before_the_start_says_what_to_do() -> None:
    with pytest.raises(BrokerUnavailable, match=r"bus\.start"):
        await RabbitMQMessageBus(URL).publish(Placed())


async def test_f37_a_handler_timeout_above_the_brokers_is_refused() -> None:
    bus = RabbitMQMessageBus(URL, consumer_timeout=timedelta(seconds=30))
    with pytest.raises(ConfigurationError, match=r"handle is not below RabbitMQ's consumer_timeout"):
        bus._queue_of(spec(timeout=timedelta(seconds=30)), "shop")


def test_queue_names() -> None:
    class Pack(Message):
        MESSAGE_TOPIC = "orders.pack"
        MESSAGE_TYPE = "task"

    def name(handler: HandlerSpec) -> str:
        return work_queue(handler, exchange="jararaca", service="shop", delivery_limit=5).name

    assert name(spec()) == "jararaca.shop.Orders.handle"
    assert name(spec(name="orders.mail")) == "jararaca.shop.orders.mail"
    assert name(spec(Pack)) == "jararaca.task.orders.pack"


@pytest.mark.parametrize("service", ["task", "a.b", "a b", "", "ü", "a\n"])
def test_a_service_name_that_cannot_be_in_a_queue_name_is_refused(service: str) -> None:
    with pytest.raises(ConfigurationError, match="microservice's name"):
        work_queue(spec(), exchange="jararaca", service=service, delivery_limit=5)


@pytest.mark.parametrize("topic", ["orders.dead", "orders.delay.4", "a" * 240])
def test_a_task_whose_queue_could_be_another_is_refused(topic: str) -> None:
    class Pack(Message):
        MESSAGE_TOPIC = topic
        MESSAGE_TYPE = "task"

    with pytest.raises(ConfigurationError, match="change the task's MESSAGE_TOPIC"):
        work_queue(spec(Pack), exchange="jararaca", service="shop", delivery_limit=5)


@pytest.mark.parametrize(
    ("delay_s", "tier_s"), [(0.01, 1), (1, 1), (1.01, 2), (2, 2), (3, 4), (33, 64), (64, 64), (65, 128)]
)
def test_delay_queues_are_tiers_of_powers_of_two(delay_s: float, tier_s: int) -> None:
    queue = WorkQueue(name="q", topic="t", delivery_limit=5).delay(delay_s)
    assert queue.name == f"q.delay.{tier_s}"
    assert queue.arguments["x-message-ttl"] == tier_s * 1000
    assert queue.arguments["x-dead-letter-routing-key"] == "q"


def test_reading_a_delivery() -> None:
    first = read(incoming(), 100, 5)
    assert (first.body, first.message_id, first.number) == (b"{}", "m1", 1)
    headers = {"x-jararaca-attempt": 3, "x-jararaca-message-id": "m0"}
    copy = read(incoming(headers=headers, content_type="Application/JSON; charset=utf-8"), 100, 5)
    assert (copy.message_id, copy.number) == ("m0", 3)


def test_a_message_without_an_id_gets_one() -> None:
    first, second = (read(incoming(message_id=None), 100, 5).message_id for _ in range(2))
    assert first
    assert first != second


@pytest.mark.parametrize("attempt", [0, -1, 6, 2**63, True, 1.0, "2", None, [1], {"a": 1}, b"1"])
def test_b37_a_forged_attempt_header_is_refused(attempt: object) -> None:
    with pytest.raises(InvalidMessage, match="x-jararaca-attempt"):
        read(incoming(headers={"x-jararaca-attempt": attempt}), 100, 5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"body": b"x" * 101}, "101 bytes"),
        ({"content_type": None}, "content type"),
        ({"content_type": "application/x-python-pickle"}, "content type"),
        ({"content_type": "text/plain\r\nx: y"}, "content type"),
        ({"headers": {"x-jararaca-message-id": 7}}, "its id"),
        ({"message_id": "x" * 256}, "its id"),
    ],
)
def test_b35_b37_what_is_not_ours_is_refused_in_one_line(changes: Any, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as caught:
        read(incoming(**changes), 100, 5)
    assert "\n" not in str(caught.value)
