from __future__ import annotations

import copy
import inspect
from datetime import timedelta
from enum import Enum

import pytest

from jararaca_ws import errors
from jararaca_ws.errors import (
    BackendUnavailable,
    BadRoom,
    ConfigurationError,
    ConnectionClosed,
    DuplicateEndpoint,
    DuplicateMessageId,
    DuplicateRoomPattern,
    IllegalTransition,
    InvalidMessage,
    JararacaError,
    MessageIdUnset,
    MessageNotEncodable,
    NotBound,
    UnitOfWorkOver,
    UnresolvableDependency,
    Unroutable,
    quoted,
)


class Colour(Enum):
    RED = 0
    GREEN = 1


class First: ...


class Second: ...


EXAMPLES = [
    (ConfigurationError("it is wrong", "do this"), ["it is wrong", "do this"]),
    (DuplicateRoomPattern(First, Second), ["test_errors.First", "test_errors.Second"]),
    (DuplicateMessageId("chat", First, Second), ["'chat'", "test_errors.First", "test_errors.Second"]),
    (DuplicateEndpoint("/ws", First, Second), ["'/ws'", "test_errors.First", "test_errors.Second"]),
    (UnresolvableDependency(First, "db", "is unknown", "add it"), ["test_errors.First", "'db'", "is unknown"]),
    (BackendUnavailable("it sleeps"), ["WebSocket backend", "it sleeps"]),
    (errors.BrokerUnavailable("it sleeps"), ["message broker", "it sleeps"]),
    (Unroutable("a.topic"), ["'a.topic'", "@MessageHandler"]),
    (NotBound("message bus", "bind one"), ["message bus", "bind one"]),
    (UnitOfWorkOver("sent", "use send_now"), ["sent", "use send_now"]),
    (MessageIdUnset(First), ["test_errors.First", "MESSAGE_ID"]),
    (MessageNotEncodable(First, "NaN"), ["test_errors.First", "NaN"]),
    (InvalidMessage("bad_request", "no"), ["bad_request", "no"]),
    (errors.NotCarried(First, Second), ["test_errors.First", "test_errors.Second"]),
    (errors.PermissionDenied("a\nb"), [r"'a\nb'"]),
    (BadRoom("a\nb", "control"), [r"'a\nb'", "control"]),
    (BadRoom(7, "a room is a string"), ["a int", "a room is a string"]),
    (errors.BadUserId("a\nb", "control"), [r"'a\nb'", "a user id", "control"]),
    (errors.CallFailed("denied\n", "no"), [r"'denied\n'", "no"]),
    (errors.CallTimeout(First, timedelta(seconds=2)), ["test_errors.First", "2 s"]),
    (ConnectionClosed("c1", 4008, "slow"), ["c1", "4008"]),
    (IllegalTransition("a lamp", Colour.RED, Colour.GREEN), ["a lamp", "RED", "GREEN"]),
]
each = pytest.mark.parametrize(("error", "parts"), EXAMPLES, ids=lambda value: type(value).__name__)


@each
def test_an_error_names_what_was_wrong_in_one_line(error: JararacaError, parts: list[str]):
    assert isinstance(error, JararacaError)
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


@each
def test_an_error_survives_being_copied(error: JararacaError, parts: list[str]):
    """Process pools, test runners and error reporters copy or pickle what is raised."""
    again = copy.copy(error)
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_every_public_error_is_drawn_in_the_tree_under_its_parent():
    tree = inspect.getdoc(errors) or ""
    for name in errors.__all__:
        if name != "quoted":
            assert issubclass(getattr(errors, name), JararacaError), name
            assert f" {name} " in tree.replace("\n", " \n"), name


def test_a_bad_room_is_a_value_error():
    assert isinstance(BadRoom("", "it is empty"), ValueError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "'plain'"),
        ("two\r\nlines", r"'two\r\nlines'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("größe\u202e", r"'gr\xf6\xdfe\u202e'"),
        ("x" * 128, repr("x" * 128)),
        ("x" * 1_000_000, "'" + "x" * 128 + "'... (1000000 characters)"),
    ],
    ids=["plain", "CRLF", "ANSI", "bidi", "at the limit", "1 MB"],
)
def test_b34_a_string_from_outside_stays_in_its_line(text: str, expected: str):
    assert quoted(text) == expected
