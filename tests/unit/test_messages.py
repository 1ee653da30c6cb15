from __future__ import annotations

import gc
from typing import Any, Generic, TypeVar

import pytest

from jararaca_ws.context import provide_ws_manager, provide_ws_message_sender
from jararaca_ws.errors import ConfigurationError, DuplicateMessageId, MessageIdUnset, NotBound
from jararaca_ws.messages import WebSocketMessage, WebSocketMessageBase, check_message_ids, message_class
from jararaca_ws.wire.protocol import decode, encode

T = TypeVar("T")


class Abstract(WebSocketMessage):
    text: str = ""


class Greeting(Abstract):
    MESSAGE_ID = "test_messages.greeting"


class LoudGreeting(Greeting):
    loud: bool = True


class Page(WebSocketMessage, Generic[T]):
    MESSAGE_ID = "test_messages.page"

    items: list[T]


def define(message_id: Any, name: str = "Defined", module: str = __name__) -> type[WebSocketMessage]:
    """A class statement with another name and module."""
    return type(name, (WebSocketMessage,), {"MESSAGE_ID": message_id, "__module__": module, "__qualname__": name})


class RecordingSender:
    def __init__(self) -> None:
        self.sent: list[tuple[tuple[str, ...], WebSocketMessageBase]] = []

    async def send(self, rooms: Any, message: WebSocketMessageBase, **_: Any) -> None:
        self.sent.append((tuple(rooms), message))


def test_a_class_without_an_id_may_exist_and_the_error_of_sending_it_names_it():
    with pytest.raises(MessageIdUnset, match=r"tests\.unit\.test_messages\.Abstract has no MESSAGE_ID"):
        encode(Abstract())


def test_an_id_is_found_and_inherited():
    assert message_class("test_messages.greeting") is Greeting
    assert LoudGreeting.MESSAGE_ID == "test_messages.greeting"
    assert encode(LoudGreeting()).data.startswith(b'{"MESSAGE_ID":"test_messages.greeting"')
    check_message_ids()


def test_an_unknown_id_has_no_class():
    assert message_class("test_messages.nobody") is None
    assert message_class("__UNSET__") is None


def test_a_generic_message_is_one_message_whatever_its_parameters():
    frame = encode(Page[int](items=[1, 2]))
    assert frame.data == b'{"MESSAGE_ID":"test_messages.page","message":{"items":[1,2]}}'
    encode(Page[str](items=["x"]))
    check_message_ids()
    decoded = decode(frame.data)
    assert isinstance(decoded, Page)
    assert decoded.items == [1, 2]


def test_two_classes_with_one_id_are_refused_at_start_with_both_names():
    first = define("test_messages.duplicate", "Alpha", "app.alpha")
    second = define("test_messages.duplicate", "Beta", "app.beta")
    with pytest.raises(DuplicateMessageId) as caught:
        check_message_ids()
    assert {caught.value.first, caught.value.second} == {first, second}
    assert all(part in str(caught.value) for part in ("'test_messages.duplicate'", "app.alpha.Alpha", "app.beta.Beta"))
    del first, second, caught
    gc.collect()
    check_message_ids()


def test_classes_that_nobody_uses_any_more_are_no_duplicates():
    """A class made in a function goes with it, as soon as somebody looks, not when the collector happens to run."""
    problem = ""
    gc.disable()
    try:
        define("test_messages.gone", "Alpha", "app.alpha")
        define("test_messages.gone", "Beta", "app.beta")
        check_message_ids()
    except DuplicateMessageId as error:
        problem = str(error)  # and not the error itself: it would keep the classes
    finally:
        gc.enable()
        gc.collect()
    assert problem == ""


def test_a_module_that_is_loaded_again_makes_no_duplicate_and_the_latest_class_counts():
    classes = [define("test_messages.again", "Again", "app.again") for _ in range(3)]
    check_message_ids()
    assert message_class("test_messages.again") is classes[-1]


def test_a_class_is_forgotten_when_nobody_uses_it_even_after_it_was_sent_and_received():
    def use() -> None:
        class Inner(Abstract):
            MESSAGE_ID = "test_messages.forgotten"

            nothing: None = None

        assert decode(encode(Inner()).data) == Inner()

    use()
    gc.collect()
    assert message_class("test_messages.forgotten") is None


@pytest.mark.parametrize("bad", ["", "a\nb", "a\x00b", "x" * 256, 7, None, b"bytes", "\ud800", "a\u202eb"])
def test_a_bad_id_is_refused_where_the_class_is_written(bad: Any):
    with pytest.raises(ConfigurationError, match=r"test_messages\.Defined\.MESSAGE_ID is .*1 to 255 printable"):
        define(bad)


@pytest.mark.parametrize("good", ["x", "x" * 255, "größe", "a b", 'quo"ted\\', "a,b", "{}"])
def test_any_printable_id_works_both_ways(good: str):
    cls = define(good)
    assert isinstance(decode(encode(cls()).data), cls)


def test_the_prefix_of_control_messages_is_reserved():
    with pytest.raises(ConfigurationError, match=r"'jararaca\.mine'.*reserved for control messages"):
        define("jararaca.mine")
    define("jararaca_mine")


def test_a_refused_class_leaves_nothing_behind():
    with pytest.raises(ConfigurationError):
        define("jararaca.refused")
    assert message_class("jararaca.refused") is None


async def test_send_goes_to_the_sender_of_the_context_and_send_now_to_the_manager():
    sender, manager = RecordingSender(), RecordingSender()
    message = Greeting(text="hi")
    with provide_ws_manager(manager), provide_ws_message_sender(sender):  # type: ignore[arg-type]
        await message.send("a", "b")
        assert (sender.sent, manager.sent) == ([(("a", "b"), message)], [])
        await message.send_now("c")
    assert manager.sent == [(("c",), message)]


async def test_sending_outside_of_a_unit_of_work_says_what_to_do():
    for send in (Greeting().send, Greeting().send_now):
        with pytest.raises(NotBound, match="WebSocketInterceptor"):
            await send("a")
