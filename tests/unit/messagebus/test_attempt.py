from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pydantic import field_validator

from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.interceptors.base import AppTransactionContext, MessageBusTransactionData
from jararaca_ws.messagebus.attempt import Attempt, Dead, Dispatcher, Outcome, Retry, Running
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.message import Message, MessageOf
from jararaca_ws.supervision import Backoff


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"

    number: int

    @field_validator("number")
    @classmethod
    def _not_unlucky(cls, value: int) -> int:
        if value == 13:
            raise RuntimeError("a validator that breaks")
        return value


class Controller:
    pass


class FakeRuntime:
    """A runtime with one interceptor."""

    name = "shop"
    controllers: Sequence[type] = (Controller,)

    def __init__(self, intercept: Callable[[AppTransactionContext], AbstractAsyncContextManager[None]]) -> None:
        self.unit_of_work = intercept

    def build(self, controller: type) -> Any:
        return controller()


@asynccontextmanager
async def plain(_: AppTransactionContext) -> AsyncIterator[None]:
    yield


def handler(function: Callable[..., Any], **options: Any) -> HandlerSpec:
    defaults: dict[str, Any] = {
        "name": "Controller.handle",
        "controller": Controller,
        "function": function,
        "message_type": Placed,
        "takes_payload": True,
        "timeout": timedelta(seconds=5),
        "max_attempts": 3,
        "backoff": Backoff(first_s=1, factor=2, max_s=100),
        "concurrency": 1,
    }
    return HandlerSpec(**{**defaults, **options})


def attempt(body: bytes = b'{"number": 1}', number: int = 1) -> Attempt:
    return Attempt(body=body, message_id="m1", number=number)


async def dispatch(function: Callable[..., Any], given: Attempt, intercept: Any = plain, **options: Any) -> Outcome:
    return await Dispatcher(FakeRuntime(intercept))(handler(function, **options), given)


async def failing(self: object, message: object) -> None:
    raise ValueError("no stock")


async def test_a_handler_runs_in_a_unit_of_work_that_knows_the_message() -> None:
    seen: list[Any] = []

    @asynccontextmanager
    async def intercept(context: AppTransactionContext) -> AsyncIterator[None]:
        seen.append(context)
        yield
        seen.append("after")

    async def handle(self: object, message: MessageOf[Placed]) -> None:
        seen.extend((self, message))

    outcome = await dispatch(handle, attempt(number=2), intercept, takes_payload=False)
    context, controller, message, after = seen
    assert outcome is None
    assert after == "after"
    assert isinstance(controller, Controller)
    assert message.payload() == Placed(number=1)
    data = context.transaction_data
    assert isinstance(data, MessageBusTransactionData)
    assert (data.context_type, data.topic, data.message_id, data.attempt) == ("message_bus", "orders.placed", "m1", 2)
    assert data.message is message
    assert (context.controller, context.handler) == (Controller, handle)


async def test_a_handler_may_take_the_payload_itself() -> None:
    seen: list[Any] = []

    async def handle(self: object, message: Placed) -> None:
        seen.append(message)

    assert await dispatch(handle, attempt()) is None
    assert seen == [Placed(number=1)]


@pytest.mark.parametrize(("number", "bound_s"), [(1, 1), (2, 2), (4, 8), (9, 100)])
async def test_f33_a_failure_is_retried_after_an_exponential_jittered_delay(number: int, bound_s: float) -> None:
    outcomes = [await dispatch(failing, attempt(number=number), max_attempts=10) for _ in range(20)]
    delays = [outcome.delay_s for outcome in outcomes if isinstance(outcome, Retry) and outcome.attempt == number + 1]
    assert len(delays) == 20
    assert all(bound_s / 10 <= delay <= bound_s for delay in delays)
    assert len(set(delays)) > 1


async def test_f33_the_last_attempt_ends_in_the_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    outcome = await dispatch(failing, attempt(number=3))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.error_type, outcome.attempts) == ("attempts_exhausted", "ValueError", 3)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert outcome.error_id in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[]", b"null", b'{"number": "secret-x"}', b'{"number": 13}'])
async def test_f35_what_is_not_the_message_goes_to_the_dead_letters_at_once(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = await dispatch(failing, attempt(body))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.attempts) == ("undecodable", 0)
    (record,) = caplog.records
    assert outcome.error_id in record.getMessage()
    assert "secret-x" not in record.getMessage()
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


async def test_f35_a_deeply_nested_body_goes_to_the_dead_letters() -> None:
    outcome = await dispatch(failing, attempt(b'{"number":' + b"[" * 100_000))
    assert isinstance(outcome, Dead)


async def test_f37_a_handler_that_hangs_is_cancelled_and_retried() -> None:
    cancelled = asyncio.Event()

    async def hang(self: object, message: object) -> None:
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    outcome = await dispatch(hang, attempt(), timeout=timedelta(milliseconds=20))
    assert isinstance(outcome, Retry)
    assert cancelled.is_set()


async def test_f37_an_interceptor_that_hangs_counts_against_the_same_timeout() -> None:
    @asynccontextmanager
    async def hang(_: AppTransactionContext) -> AsyncIterator[None]:
        yield
        await asyncio.Future()

    async def handle(self: object, message: object) -> None: ...

    outcome = await dispatch(handle, attempt(number=3), hang, timeout=timedelta(milliseconds=20))
    assert isinstance(outcome, Dead)
    assert outcome.error_type == "TimeoutError"


async def test_a_flush_that_fails_after_the_handler_is_a_failure() -> None:
    @asynccontextmanager
    async def flush(_: AppTransactionContext) -> AsyncIterator[None]:
        yield
        raise BackendUnavailable("Redis is away")

    async def handle(self: object, message: object) -> None: ...

    assert isinstance(await dispatch(handle, attempt(), flush), Retry)


async def test_cancelling_passes_through() -> None:
    begun = asyncio.Event()

    async def hang(self: object, message: object) -> None:
        begun.set()
        await asyncio.Future()

    task = asyncio.create_task(dispatch(hang, attempt()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    async def handle(self: object, message: object) -> None:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    assert isinstance(await dispatch(handle, attempt()), Retry)


async def test_an_interceptor_that_swallows_does_not_make_it_a_success() -> None:
    @asynccontextmanager
    async def swallow(_: AppTransactionContext) -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            return

    assert isinstance(await dispatch(failing, attempt(), swallow), Retry)


async def test_running_counts() -> None:
    running = Running()
    assert await running.none(0)
    with running:
        with running:
            assert not await running.none(0.01)
        assert not await running.none(0)
    assert await running.none(0)
