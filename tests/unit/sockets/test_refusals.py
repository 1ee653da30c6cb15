"""What a client is told of what was refused, and when it is closed for it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.errors import (
    AuthenticationFailed,
    BadRoom,
    ErrorCategory,
    InvalidMessage,
    JararacaError,
    LimitReached,
    OriginNotAllowed,
    PermissionDenied,
    RateLimited,
    TokenExpired,
)
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.played import Socket, errors_in, serving, until, until_closed

HTTP: dict[str, Any] = {"websocket.http.response": {}}


class OutOfStock(JararacaError):
    category = ErrorCategory.VALIDATION
    code = "out_of_stock"
    retry_after = timedelta(seconds=1.5)


async def told(socket: Socket, count: int = 1) -> list[dict[str, Any]]:
    await until(lambda: len(socket.server.frames) >= count)
    return [json.loads(one) for one in socket.server.frames]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("hunter2"), "internal_error"),
        (JararacaError("hunter2"), "internal_error"),
        (BadRoom("hunter2", "it is bad"), "bad_room"),
        (PermissionDenied("hunter2"), "permission_denied"),
        (OutOfStock("hunter2"), "out_of_stock"),
    ],
)
async def test_b15_a_client_learns_nothing_but_the_code_and_the_id(
    error: Exception, code: str, caplog: pytest.LogCaptureFixture
):
    async with serving(until_closed, subprotocols=[SUBPROTOCOL]) as socket:
        socket.connection.refuse(error, "7")
        (frame,) = await told(socket)
        assert (frame["MESSAGE_ID"], frame["ref"], frame["message"]["code"]) == ("jararaca.error", "7", code)
        assert set(frame["message"]) - {"retry_after_ms"} == {"code", "id"}
    (line,) = [record for record in caplog.records if frame["message"]["id"] in record.getMessage()]
    is_ours = code == "internal_error"
    assert (line.levelname, line.exc_info is not None) == ("ERROR" if is_ours else "WARNING", is_ours)
    assert socket.connection.id in line.getMessage()


async def test_when_to_try_again_is_told_where_it_is_known():
    async with serving(until_closed, subprotocols=[SUBPROTOCOL]) as socket:
        for error in (OutOfStock(), RateLimited(timedelta(milliseconds=20.4)), RateLimited()):
            socket.connection.refuse(error)
        frames = await told(socket, 3)
        assert [frame["message"].get("retry_after_ms") for frame in frames] == [1500, 21, None]


async def test_who_understands_no_control_message_is_told_where_it_waits():
    async with serving(until_closed) as socket:
        socket.connection.refuse(PermissionDenied("a"))
        socket.connection.refuse(PermissionDenied("a"), "7")
        (frame,) = await told(socket)
        assert frame["ref"] == "7"


async def refused(count: int, error: Exception, settings: WebSocketSettings | None = None, **options: Any) -> Any:
    """The code with which a client is closed that is refused so often; None where it is not."""
    async with serving(until_closed, settings=settings) as socket:
        for _ in range(count):
            assert socket.connection.alive
            socket.connection.refuse(error, **options)
        if socket.connection.alive:
            return None
        await socket.ended()
        assert socket.server.close is not None
        return socket.server.close[0]


LIMITS = WebSocketSettings(max_invalid_messages=2, max_denials=4, max_rate_limited=6)


@pytest.mark.parametrize(
    ("error", "limit", "code"),
    [
        (InvalidMessage("a"), 2, 4501),
        (PermissionDenied("a"), 4, 4507),
        (RateLimited(), 6, 4013),
        (TokenExpired(), 1, 4005),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_b21_a_client_that_goes_on_asking_is_closed_with_4507(error: Exception, limit: int, code: int):
    """And with the codes of other errors, each of which has a count of its own."""
    assert await refused(limit - 1, error, LIMITS) is None
    assert await refused(limit, error, LIMITS) == code


async def test_by_default_ten_denials_are_too_many():
    assert await refused(9, PermissionDenied("a")) is None
    assert await refused(10, PermissionDenied("a")) == 4507


@pytest.mark.parametrize("error", [RuntimeError(), OutOfStock(), BadRoom("a", "b"), JararacaError()])
async def test_what_may_be_a_users_mistake_or_is_ours_is_not_counted(error: Exception):
    assert await refused(30, error) is None


async def test_what_is_no_strike_is_not_counted():
    assert await refused(30, InvalidMessage("a"), is_strike=False) is None


async def test_what_was_long_ago_counts_no_more():
    settings = WebSocketSettings(max_denials=2, refusal_window=timedelta(0))
    assert await refused(30, PermissionDenied("a"), settings) is None


class TestHandshake:
    @pytest.mark.parametrize(
        ("error", "status", "headers"),
        [
            (AuthenticationFailed("hunter2"), 401, [(b"www-authenticate", b"Bearer")]),
            (RateLimited(timedelta(seconds=1.2), "hunter2"), 429, [(b"retry-after", b"2")]),
            (LimitReached("hunter2", 7), 429, []),
        ],
    )
    async def test_who_is_not_let_in_is_answered_by_http(self, error: Exception, status: int, headers: list[Any]):
        async with serving(raising(error), accept=False, extensions=HTTP) as socket:
            await socket.ended()
            start, body = socket.server.sent
            assert (start["status"], start["headers"]) == (status, headers)
            assert b"hunter2" not in body["body"]

    @pytest.mark.parametrize(
        ("error", "code"), [(AuthenticationFailed("hunter2"), 4500), (LimitReached("hunter2", 7), 4504)]
    )
    async def test_where_the_server_has_no_such_answer_it_is_accepted_and_closed(self, error: Exception, code: int):
        async with serving(raising(error), accept=False) as socket:
            await socket.ended()
            assert socket.server.kinds == ["accept", "close"]
            assert socket.server.close is not None
            assert socket.server.close[0] == code

    @pytest.mark.parametrize("extensions", [{}, HTTP], ids=["without", "with the extension"])
    async def test_b24_another_origin_is_never_accepted(self, extensions: dict[str, Any]):
        async with serving(raising(OriginNotAllowed("evil")), accept=False, extensions=extensions) as socket:
            await socket.ended()
            assert socket.server.kinds == ["close"], "which servers answer with 403"

    async def test_an_endpoint_that_was_accepted_is_closed_with_the_code_of_the_error(
        self, caplog: pytest.LogCaptureFixture
    ):
        async with serving(raising(PermissionDenied("hunter2"))) as socket:
            await socket.ended()
            assert socket.server.close == (4507, "permission denied")
        assert not errors_in(caplog)

    async def test_a_reason_that_is_too_long_is_cut(self):
        class Wordy(OutOfStock):
            @property
            def detail(self) -> str:
                return "é" * 100

        async with serving(raising(Wordy())) as socket:
            await socket.ended()
            assert socket.server.close == (1011, "é" * 61)


def raising(error: Exception) -> Any:
    async def handler(_: WebSocketConnection) -> None:
        raise error

    return handler
