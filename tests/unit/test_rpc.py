from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel

from jararaca_ws import (
    CallFailed,
    CallTimeout,
    ConfigurationError,
    ConnectionClosed,
    MessageIdUnset,
    RestController,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketMessage,
    WebSocketRequest,
    WebSocketSettings,
)
from jararaca_ws.rpc import reply_type
from jararaca_ws.testing import connect
from tests.unit.apps import running
from tests.unit.played import Handler, Socket, serving, turns, until, until_closed

T = TypeVar("T")
SOON = timedelta(milliseconds=20)


class Confirmed(BaseModel):
    yes: bool


class Confirm(WebSocketRequest[Confirmed]):
    MESSAGE_ID = "test_rpc.confirm"

    question: str = "really?"


class HowMany(WebSocketRequest[float]):
    MESSAGE_ID = "test_rpc.how_many"


class Said(WebSocketMessage):
    MESSAGE_ID = "test_rpc.said"


class Untyped(WebSocketRequest):  # type: ignore[type-arg]
    MESSAGE_ID = "test_rpc.untyped"


class Page(WebSocketRequest[list[T]], Generic[T]):
    pass


class Names(Page[str]):
    MESSAGE_ID = "test_rpc.names"


class Unsent(WebSocketRequest[str]):
    pass


def reply(ref: str, message: Any = None) -> str:
    message = {"yes": True} if message is None else message
    return json.dumps({"MESSAGE_ID": "jararaca.reply", "message": message, "ref": ref})


def refusal(ref: str, code: str) -> str:
    return json.dumps({"ref": ref, "MESSAGE_ID": "jararaca.error", "message": {"code": code}})


class Caller:
    """A handler that calls once, and keeps what came of it."""

    def __init__(self, call: Callable[[WebSocketConnection], Awaitable[Any]]) -> None:
        self.call = call
        self.results: list[Any] = []

    async def __call__(self, connection: WebSocketConnection) -> None:
        try:
            self.results.append(await self.call(connection))
        except Exception as error:
            self.results.append(error)
        await until_closed(connection)


async def asked(socket: Socket, count: int = 1) -> list[Any]:
    await until(lambda: len(socket.server.frames) >= count)
    return [json.loads(frame) for frame in socket.server.frames]


def left_behind(connection: WebSocketConnection) -> int:
    assert connection.calls is not None
    return len(connection.calls)


async def test_a_client_is_asked_and_its_reply_is_typed():
    caller = Caller(lambda connection: connection.call(Confirm(question="sure?")))
    async with serving(caller) as socket:
        [request] = await asked(socket)
        assert request == {"MESSAGE_ID": "test_rpc.confirm", "message": {"question": "sure?"}, "ref": request["ref"]}
        socket.server.text(reply(request["ref"]))
        await until(lambda: caller.results)
        assert caller.results == [Confirmed(yes=True)]
        assert left_behind(socket.connection) == 0


async def test_replies_find_their_calls_in_any_order():
    async def both(connection: WebSocketConnection) -> list[float]:
        return await asyncio.gather(connection.call(HowMany()), connection.call(HowMany()))

    caller = Caller(both)
    async with serving(caller) as socket:
        first, second = [request["ref"] for request in await asked(socket, 2)]
        assert first != second
        socket.server.text(reply(second, 2.0))
        socket.server.text(reply(first, 1.0))
        await until(lambda: caller.results)
        assert caller.results == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda ref: refusal(ref, "denied"), "denied"),
        (lambda ref: reply(ref, {"yes": "perhaps"}), "bad_reply"),
        (lambda ref: json.dumps({"MESSAGE_ID": "jararaca.reply", "ref": ref}), "bad_reply"),
        (lambda ref: refusal(ref, "x" * 65), "bad_reply"),
        (lambda ref: f'{{"MESSAGE_ID":"jararaca.reply","ref":"{ref}","message":{{"yes":NaN}}}}', "bad_reply"),
    ],
)
async def test_what_is_no_reply_is_an_error(answer: Callable[[str], str], code: str):
    caller = Caller(lambda connection: connection.call(Confirm()))
    async with serving(caller) as socket:
        socket.server.text(answer((await asked(socket))[0]["ref"]))
        await until(lambda: caller.results)
        assert isinstance(caller.results[0], CallFailed)
        assert caller.results[0].reason == code
        assert "perhaps" not in str(caller.results[0])
        assert socket.connection.alive


async def test_infinity_is_no_number():
    caller = Caller(lambda connection: connection.call(HowMany()))
    async with serving(caller) as socket:
        socket.server.text(reply((await asked(socket))[0]["ref"], 1).replace("1,", "1e999,"))
        await until(lambda: caller.results)
        assert isinstance(caller.results[0], CallFailed)


async def test_a_late_or_second_answer_reaches_neither_call_nor_handler():
    messages: list[Any] = []

    async def handler(connection: WebSocketConnection) -> None:
        with pytest.raises(CallTimeout, match=r"Confirm within 0\.02 s"):
            await connection.call(Confirm(), timeout=SOON)
        async for message in connection:
            messages.append(message)  # noqa: PERF401 - one by one

    async with serving(handler) as socket:
        [request] = await asked(socket)
        await until(lambda: left_behind(socket.connection) == 0)
        for _ in range(5):  # each of them would be a strike
            socket.server.text(reply(request["ref"]))
        socket.server.text('{"MESSAGE_ID":"test_rpc.said","message":{}}')
        await until(lambda: messages)
        assert messages == [Said()]
        assert socket.connection.alive


async def test_a_reply_that_nobody_asked_for_is_refused():
    async def handler(connection: WebSocketConnection) -> None:
        async for _ in connection:
            raise AssertionError

    async with serving(handler) as socket:
        for _ in range(3):
            socket.server.text(reply("1"))
        await socket.ended()
        assert socket.server.close is not None
        assert socket.server.close[0] == 4501


@pytest.mark.parametrize("end", ["client", "server"])
async def test_the_end_of_the_socket_ends_the_call(end: str):
    caller = Caller(lambda connection: connection.call(Confirm()))
    async with serving(caller) as socket:
        await asked(socket)
        if end == "client":
            socket.server.disconnect()
        else:
            socket.connection.begin_close(4503, "bye")
        await socket.ended()
        assert isinstance(caller.results[0], ConnectionClosed)
        assert caller.results[0].closed_with == (1001 if end == "client" else 4503)
        assert left_behind(socket.connection) == 0
        with pytest.raises(ConnectionClosed):
            await socket.connection.call(Confirm())
        assert left_behind(socket.connection) == 0


async def test_a_cancelled_call_leaves_nothing():
    async with serving(until_closed) as socket:
        call = asyncio.create_task(socket.connection.call(Confirm()))
        await asked(socket)
        assert left_behind(socket.connection) == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert left_behind(socket.connection) == 0


async def test_an_answer_in_the_moment_of_the_cancellation_is_no_error():
    async with serving(until_closed) as socket:
        call = asyncio.create_task(socket.connection.call(Confirm()))
        [request] = await asked(socket)
        assert socket.connection.calls is not None
        call.cancel()
        assert socket.connection.calls.take({"type": "websocket.receive", "text": reply(request["ref"])})
        with pytest.raises(asyncio.CancelledError):
            await call
        assert left_behind(socket.connection) == 0


async def test_a_client_that_does_not_read_is_no_hang():
    # The outbound queue is full, so the question itself waits.
    settings = WebSocketSettings(max_queue_bytes=400)
    caller = Caller(lambda connection: connection.call(Confirm(question="x" * 100), timeout=SOON))
    async with serving(until_closed, settings=settings) as socket:
        socket.server.taking.clear()
        for _ in range(2):  # one in the server's hands, one in the queue
            await socket.connection.send(Said())
            await turns()
        call = asyncio.create_task(caller(socket.connection))
        await until(lambda: caller.results)
        assert isinstance(caller.results[0], CallTimeout)
        assert left_behind(socket.connection) == 0
        socket.server.taking.set()
        await turns()
        assert len(socket.server.frames) == 2  # the question was never queued
        call.cancel()


async def test_only_so_many_calls_wait_for_one_client():
    limit = WebSocketSettings().max_pending_calls
    async with serving(until_closed) as socket:
        calls = [asyncio.create_task(socket.connection.call(Confirm())) for _ in range(limit)]
        requests = await asked(socket, limit)
        with pytest.raises(CallFailed, match="too_many_calls"):
            await socket.connection.call(Confirm())
        socket.server.text(reply(requests[0]["ref"]))
        await calls[0]
        calls.append(asyncio.create_task(socket.connection.call(Confirm())))
        for request in (await asked(socket, limit + 1))[1:]:
            socket.server.text(reply(request["ref"]))
        assert len(await asyncio.gather(*calls)) == limit + 1


async def test_the_answer_overtakes_what_the_handler_has_not_read():
    seen: list[Any] = []

    async def handler(connection: WebSocketConnection) -> None:
        async for message in connection:
            seen.append(message)
            seen.append(await connection.call(Confirm()))

    async with serving(handler) as socket:
        for _ in range(2):
            socket.server.text('{"MESSAGE_ID":"test_rpc.said","message":{}}')
        [request] = await asked(socket)
        socket.server.text(reply(request["ref"]))
        requests = await asked(socket, 2)
        assert seen == [Said(), Confirmed(yes=True), Said()]
        socket.server.text(reply(requests[1]["ref"], {"yes": False}))
        await until(lambda: len(seen) == 4)
        assert seen[-1] == Confirmed(yes=False)


@pytest.mark.parametrize(
    "text",
    [
        '{"MESSAGE_ID":"test_rpc.said","message":{},"note":"jararaca.reply"}',
        '{"MESSAGE_ID":"test_rpc.said","message":{},"ref":"1","note":"jararaca.error"}',
    ],
)
async def test_a_message_that_only_talks_of_replies_is_the_applications(text: str):
    messages: list[Any] = []

    async def handler(connection: WebSocketConnection) -> None:
        call = asyncio.create_task(connection.call(Confirm()))
        try:
            async for message in connection:
                messages.append(message)  # noqa: PERF401 - one by one
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async with serving(handler) as socket:
        await asked(socket)
        socket.server.text(text)
        await until(lambda: messages)
        assert messages == [Said()]


async def test_what_is_wrong_with_the_class_is_said_before_anybody_is_asked():
    async with serving(until_closed) as socket:
        for untyped in (Untyped(), Names()):
            with pytest.raises(ConfigurationError, match="does not say what it is answered with"):
                await socket.connection.call(untyped)
        with pytest.raises(MessageIdUnset):
            await socket.connection.call(Unsent())
        await turns()
        assert socket.server.frames == []
        assert left_behind(socket.connection) == 0


@pytest.mark.parametrize(("cls", "expected"), [(Confirm, Confirmed), (HowMany, float)])
def test_the_reply_type_is_that_of_the_class(cls: type[WebSocketRequest[Any]], expected: Any):
    assert reply_type(cls) == expected


async def test_a_timeout_of_the_callers_own_is_its_own():
    handled: list[str] = []

    async def handler(connection: WebSocketConnection) -> None:
        try:
            async with asyncio.timeout(0.02):
                await connection.call(Confirm())
        except TimeoutError:
            handled.append("own")
        await until_closed(connection)

    checked: Handler = handler
    async with serving(checked) as socket:
        await until(lambda: handled)
        assert left_behind(socket.connection) == 0


@RestController()
class Orders:
    @WebSocketEndpoint("/orders")
    async def confirm(self, connection: WebSocketConnection) -> None:
        confirmed = await connection.call(Confirm(), timeout=timedelta(seconds=5))
        await connection.call(Confirm(question=str(confirmed.yes)))


async def test_an_endpoint_calls_a_plain_client():
    async with running(Orders) as app, connect(app.asgi, "/orders") as client:
        await client.send_text(reply((await client.receive_json())["ref"]))
        assert (await client.receive_json())["message"] == {"question": "True"}
