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
    (InvalidMessage("no"), ["bad_request: no"]),
    (errors.NotCarried(First, Second), ["test_errors.First", "test_errors.Second"]),
    (errors.PermissionDenied("a\nb"), [r"'a\nb'"]),
    (errors.UnknownMessage("no"), ["unknown_type: no"]),
    (errors.AuthenticationFailed("no token"), ["no token"]),
    (errors.AuthenticationTimeout(), ["in time"]),
    (errors.TokenExpired(), ["expired"]),
    (errors.OriginNotAllowed("https://a.b\n"), [r"'https://a.b\n'"]),
    (errors.OriginNotAllowed(None), ["no Origin"]),
    (errors.RateLimited(timedelta(seconds=2), "messages"), ["messages", "2 s"]),
    (errors.LimitReached("max_connections", 7), ["max_connections", "7"]),
    (errors.BadMetadata("it is a list"), ["it is a list"]),
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
        if name not in ("ErrorCategory", "named", "one_line", "quoted"):
            assert issubclass(getattr(errors, name), JararacaError), name
            assert f" {name} " in tree.replace("\n", " \n"), name


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BackendUnavailable("secret"), ("unavailable", 1013, 503)),
        (InvalidMessage("secret"), ("bad_request", 4501, 400)),
        (errors.UnknownMessage("secret"), ("unknown_type", 4501, 400)),
        (BadRoom("secret", "it is empty"), ("bad_room", 4501, 400)),
        (errors.BadUserId("secret", "it is empty"), ("bad_request", 4501, 400)),
        (errors.BadMetadata("secret"), ("bad_metadata", 4501, 400)),
        (errors.AuthenticationFailed("secret"), ("authentication_failed", 4500, 401)),
        (errors.AuthenticationTimeout(), ("authentication_timeout", 4502, 401)),
        (errors.TokenExpired(), ("token_expired", 4005, 401)),
        (errors.PermissionDenied("secret"), ("permission_denied", 4507, 403)),
        (errors.OriginNotAllowed("secret"), ("origin_not_allowed", 1008, 403)),
        (errors.RateLimited(None, "secret"), ("rate_limited", 4013, 429)),
        (errors.LimitReached("secret", 7), ("limit_reached", 4504, 429)),
        (errors.CallFailed("secret", "secret"), ("call_failed", 1011, 502)),
        (errors.CallTimeout(First, timedelta(seconds=2)), ("call_timeout", 1011, 504)),
        (ConfigurationError("secret"), ("internal_error", 1011, 500)),
        (ConnectionClosed("secret", 4008, "secret"), ("internal_error", 1011, 500)),
        (MessageNotEncodable(First, "secret"), ("internal_error", 1011, 500)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_client_is_told_stands_on_the_class(error: JararacaError, told: tuple[str, int, int]):
    assert (error.code, error.close_code, error.status) == told
    assert error.is_internal == (error.code == "internal_error")
    assert "secret" not in error.detail
    assert len(error.detail.encode()) <= 123


def test_an_error_of_an_application_is_checked_when_its_class_is_made():
    class OutOfStock(JararacaError):
        code = "out_of_stock"
        close_code = 4321
        status = 409

    assert not OutOfStock("7 left").is_internal
    assert OutOfStock("7 left").detail == "out of stock"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("code", "Out of stock"),
        ("code", ""),
        ("code", "größe"),
        ("code", "x" * 65),
        ("code", 7),
        ("close_code", 1005),
        ("close_code", 999),
        ("close_code", "4000"),
        ("status", 200),
        ("status", None),
        ("category", "fun"),
    ],
)
def test_an_error_of_an_application_that_no_client_can_be_told_is_refused(name: str, value: object):
    with pytest.raises(ConfigurationError, match=rf"Broken\.{name} is"):
        type("Broken", (JararacaError,), {name: value})


def test_b34_what_an_error_of_an_application_says_stays_in_its_line():
    assert errors.one_line(JararacaError("a\r\nb \x1b[31m")) == r"'a\r\nb \x1b[31m'"
    assert len(errors.one_line(JararacaError("x" * 1_000_000))) < 1100
    assert errors.one_line(BadRoom("a\nb", "it is 'so'")) == r"'a\nb' is not a room: it is 'so'"


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
