from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jararaca_ws.errors import ConfigurationError, MessageError, MessageNotEncodable, NotBound
from jararaca_ws.messagebus.message import Message, MessageOf
from jararaca_ws.messagebus.publisher import encode


class Plain(BaseModel):
    value: float | None = None


class Ordered(Message):
    MESSAGE_TOPIC = "orders.placed"

    amount: float = 1.0
    nested: Plain = Plain()
    anything: Any = None


@pytest.mark.parametrize(
    "topic", ["", ".", "a.", ".a", "a..b", "orders.*", "orders.#", "a b", "ü", "a\n", "a" * 256, 7, ["a"]]
)
def test_a_class_with_a_bad_topic_is_refused_by_name(topic: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Broken\.MESSAGE_TOPIC"):
        type("Broken", (Message,), {"MESSAGE_TOPIC": topic, "__module__": __name__})


@pytest.mark.parametrize("topic", ["a", "orders.placed", "a-b_c.D.9", "a" * 255])
def test_a_topic_is_dot_separated_words(topic: str) -> None:
    good = type("Good", (Message,), {"MESSAGE_TOPIC": topic, "__module__": __name__})
    assert topic == good.MESSAGE_TOPIC


def test_a_class_with_a_bad_type_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"Broken\.MESSAGE_TYPE"):
        type("Broken", (Message,), {"MESSAGE_TYPE": "command", "__module__": __name__})


def test_a_subclass_inherits_the_topic() -> None:
    class Special(Ordered):
        extra: int

    assert encode(Special(extra=1)).topic == "orders.placed"


def test_a_class_without_a_topic_may_exist_but_not_be_published() -> None:
    class Abstract(Message):
        pass

    with pytest.raises(MessageError, match="Abstract has no MESSAGE_TOPIC"):
        encode(Abstract())


def test_it_is_encoded_by_pydantic_with_an_id_of_its_own() -> None:
    first, second = encode(Ordered(amount=2)), encode(Ordered(amount=2))
    assert first.body == b'{"amount":2.0,"nested":{"value":null},"anything":null}'
    assert first.message_id != second.message_id


def test_nan_is_refused_when_the_message_is_made() -> None:
    with pytest.raises(ValidationError):
        Ordered(amount=math.nan)


def test_nan_that_came_in_later_is_refused_by_encode() -> None:
    message = Ordered()
    message.amount = math.inf
    with pytest.raises(MessageNotEncodable, match=r"Ordered.*NaN or infinity"):
        encode(message)


@pytest.mark.parametrize("value", [{"a": [1, math.nan]}, (math.inf,), {"b": {"c": -math.inf}}])
def test_nan_in_an_untyped_field_is_refused(value: object) -> None:
    with pytest.raises(MessageNotEncodable, match="NaN or infinity"):
        encode(Ordered(anything=value))


def test_nan_in_a_nested_model_of_the_users_is_refused() -> None:
    with pytest.raises(MessageNotEncodable, match="NaN or infinity"):
        encode(Ordered(nested=Plain(value=math.nan)))


def test_a_value_of_a_wrong_type_is_refused() -> None:
    message = Ordered()
    message.amount = "many"  # type: ignore[assignment]
    with pytest.raises(MessageNotEncodable, match="Ordered"):
        encode(message)


def test_a_value_that_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(MessageNotEncodable, match="Ordered"):
        encode(Ordered(anything=object()))


def test_a_message_that_is_too_long_is_refused() -> None:
    with pytest.raises(MessageNotEncodable, match="more than the bus takes"):
        encode(Ordered(anything="x" * 100), max_bytes=100)


async def test_publishing_where_nothing_is_bound_says_what_to_do() -> None:
    with pytest.raises(NotBound, match="MessageBusInterceptor"):
        await Ordered().publish()
    with pytest.raises(NotBound, match="MessageBusInterceptor"):
        await Ordered().publish_now()


def test_message_of_carries_the_delivery() -> None:
    payload = Ordered()
    message = MessageOf(payload, message_id="m", attempt=2, topic="orders.placed")
    assert message.payload() is payload
    assert (message.message_id, message.attempt, message.topic) == ("m", 2, "orders.placed")
