from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.messagebus.controllers import HandlerSpec, MessageBusController, MessageHandler, collect_handlers
from jararaca_ws.messagebus.message import Message, MessageOf
from jararaca_ws.supervision import Backoff

if TYPE_CHECKING:
    from collections import OrderedDict


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"


class Shipped(Message):
    MESSAGE_TOPIC = "orders.shipped"


class Pack(Message):
    MESSAGE_TOPIC = "orders.pack"
    MESSAGE_TYPE = "task"


@MessageBusController()
class Orders:
    @MessageHandler(Placed)
    async def wrapped(self, message: MessageOf[Placed]) -> OrderedDict[str, str]: ...

    @MessageHandler(Shipped, timeout=timedelta(seconds=5), max_attempts=2, concurrency=3, name="orders.shipping")
    async def bare(self, shipped: Shipped) -> None: ...

    @MessageHandler(Pack, backoff=Backoff(first_s=0.5))
    async def unannotated(self, message) -> None: ...  # type: ignore[no-untyped-def]

    async def other(self) -> None: ...


def one(controller: type) -> HandlerSpec:
    (handler,) = collect_handlers([controller])
    return handler


def test_handlers_are_collected_in_order_with_their_options() -> None:
    wrapped, bare, unannotated = collect_handlers([Orders])
    assert (wrapped.name, wrapped.topic, wrapped.takes_payload, wrapped.is_task) == (
        "Orders.wrapped",
        "orders.placed",
        False,
        False,
    )
    assert (bare.name, bare.takes_payload, bare.timeout) == ("orders.shipping", True, timedelta(seconds=5))
    assert (bare.max_attempts, bare.concurrency) == (2, 3)
    assert (unannotated.takes_payload, unannotated.is_task, unannotated.backoff.first_s) == (False, True, 0.5)
    assert (wrapped.controller, wrapped.function) == (Orders, Orders.wrapped)
    assert str(wrapped).endswith("test_controllers.Orders.wrapped")


def test_no_controllers_no_handlers() -> None:
    class Rest:
        async def get(self) -> None: ...

    assert collect_handlers([Rest]) == []


def test_a_class_made_in_a_function_is_resolved() -> None:
    class Local(Message):
        MESSAGE_TOPIC = "local"

    @MessageBusController()
    class Controller:
        @MessageHandler(Local)
        async def handle(self, message: MessageOf[Local]) -> None: ...

    assert one(Controller).message_type is Local


@pytest.mark.parametrize(
    ("annotation", "takes_payload"), [(Message, True), (MessageOf, False), (MessageOf[Message], False)]
)
def test_a_wider_annotation_is_taken(annotation: Any, takes_payload: bool) -> None:
    async def handle(self: object, message: object) -> None: ...

    handle.__annotations__["message"] = annotation
    MessageHandler(Placed)(handle)
    controller = MessageBusController()(type("Controller", (), {"handle": handle}))
    assert one(controller).takes_payload is takes_payload


@pytest.mark.parametrize("annotation", [Shipped, MessageOf[Shipped], str, "str", list[Placed], None])
def test_a_wrong_annotation_is_refused_by_name(annotation: Any) -> None:
    async def handle(self: object, message: object) -> None: ...

    handle.__annotations__["message"] = annotation
    with pytest.raises(ConfigurationError, match=r"handle.*MessageOf\[Placed\] or with Placed"):
        MessageHandler(Placed)(handle)


def test_an_annotation_that_means_nothing_is_refused_by_name() -> None:
    async def handle(self: object, message: object) -> None: ...

    handle.__annotations__["message"] = "Plcaed"
    with pytest.raises(ConfigurationError, match=r"handle.*'Plcaed' cannot be resolved.*NameError"):
        MessageHandler(Placed)(handle)


def test_a_handler_must_be_a_coroutine_function_of_one_message() -> None:
    def sync(self: object, message: Placed) -> None: ...

    async def alone(self: object) -> None: ...

    async def two(self: object, message: Placed, other: str) -> None: ...

    with pytest.raises(ConfigurationError, match=r"sync: the method must be `async def`"):
        MessageHandler(Placed)(sync)  # type: ignore[type-var]
    for function in (alone, two):
        with pytest.raises(ConfigurationError, match=r"must take exactly `self` and the message"):
            MessageHandler(Placed)(function)
    with pytest.raises(ConfigurationError, match=r"no plain method but a staticmethod"):
        MessageHandler(Placed)(staticmethod(two))
    with pytest.raises(ConfigurationError, match=r"handles another message already"):
        MessageHandler(Shipped)(Orders.wrapped)


def test_more_parameters_may_have_defaults() -> None:
    async def handle(self: object, message: Placed, retries: int = 3) -> None: ...

    assert MessageHandler(Placed)(handle) is handle


@pytest.mark.parametrize(
    ("message_type", "options", "problem"),
    [
        (str, {}, "not a subclass of Message"),
        (Placed(), {}, "not a subclass of Message"),
        (Message, {}, "Message has no MESSAGE_TOPIC"),
        (Placed, {"timeout": timedelta(0)}, "timeout must be"),
        (Placed, {"timeout": 30}, "timeout must be"),
        (Placed, {"max_attempts": 0}, "at least 1"),
        (Placed, {"concurrency": 0}, "at least 1"),
        (Placed, {"name": "a b"}, "identifiers"),
        (Placed, {"name": ""}, "identifiers"),
        (Placed, {"name": "a..b"}, "identifiers"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(message_type: Any, options: Any, problem: str) -> None:
    async def handle(self: object, message: object) -> None: ...

    with pytest.raises(ConfigurationError, match=rf"handle: .*{problem}"):
        MessageHandler(message_type, **options)(handle)


def test_handlers_in_a_class_that_is_no_controller_are_refused() -> None:
    class Forgotten:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Forgotten has the message handler handle.*@MessageBusController"):
        collect_handlers([Forgotten])


def test_two_handlers_of_one_name_are_refused() -> None:
    @MessageBusController()
    class Other:
        @MessageHandler(Placed, name="orders.shipping")
        async def handle(self, message: Placed) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Orders\.bare and .*Other\.handle are both named 'orders.shipping'"):
        collect_handlers([Orders, Other])


def test_two_handlers_of_one_task_are_refused() -> None:
    @MessageBusController()
    class Other:
        @MessageHandler(Pack)
        async def handle(self, message: Pack) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'orders.pack' is handled by both .*unannotated and .*Other\.handle"):
        collect_handlers([Orders, Other])


def test_a_topic_that_is_both_task_and_event_is_refused() -> None:
    class Packed(Message):
        MESSAGE_TOPIC = "orders.pack"

    @MessageBusController()
    class Other:
        @MessageHandler(Packed)
        async def handle(self, message: Packed) -> None: ...

    with pytest.raises(ConfigurationError, match=r"'orders.pack' is a task in one of .* and an event in the other"):
        collect_handlers([Orders, Other])


def test_inherited_handlers_count_and_an_override_without_the_decorator_hides() -> None:
    class Base:
        @MessageHandler(Placed)
        async def kept(self, message: Placed) -> None: ...

        @MessageHandler(Shipped)
        async def hidden(self, message: Shipped) -> None: ...

    @MessageBusController()
    class Derived(Base):
        async def hidden(self, message: Shipped) -> None: ...

    assert one(Derived).name == "Derived.kept"


def test_the_decorators_stack_in_any_order() -> None:
    from jararaca_ws.microservice import RestController

    class Controller:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None: ...

    assert one(MessageBusController()(RestController("/a")(Controller))).controller is Controller
    assert one(RestController("/b")(MessageBusController()(Controller))).controller is Controller
