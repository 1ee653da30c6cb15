"""One attempt to have one handler handle one message: decode, run in a unit of work, decide what becomes of it.

Every bus uses this one mechanism, so that retries and dead letters mean the same on each.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from itertools import islice
from typing import Literal
from uuid import uuid4

from pydantic import ValidationError

from jararaca_ws.errors import JararacaError, quoted
from jararaca_ws.interceptors.base import AppTransactionContext, MessageBusTransactionData, Runtime
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.message import Message, MessageOf

__all__ = ["Attempt", "Dead", "Dispatcher", "Outcome", "Retry", "Running", "malformed"]

_log = logging.getLogger("jararaca_ws.messagebus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a bus hands to a handler's dispatcher.

    Attributes:
        number: 1 on the first; the bus has checked that it does not exceed the handler's ``max_attempts``.
    """

    body: bytes
    message_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Deliver it again, as attempt ``attempt``, no earlier than after ``delay_s`` seconds."""

    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """Put it to the dead letters.

    Attributes:
        reason: ``malformed`` is what the bus itself refused (headers, size); ``undecodable`` is not the handler's
            message class; ``attempts_exhausted`` failed in the handler every time.
        error_type: the class of the last error.
        error_id: the same as in our log, where the traceback is.
        attempts: how many there were; 0 where the handler never ran.
    """

    reason: Literal["malformed", "undecodable", "attempts_exhausted"]
    error_type: str
    error_id: str
    attempts: int


Outcome = Retry | Dead | None
"""None: handled, and everything that was staged has been accepted."""


class Dispatcher:
    """Runs handlers in the units of work of one microservice."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, handler: HandlerSpec, attempt: Attempt) -> Outcome:
        """Make one attempt.

        Cancelling it (a shutdown, a lost connection) is no failure of the handler: it passes through, what was
        staged is dropped, and the message is to be given back.
        """
        try:
            payload = handler.message_type.model_validate_json(attempt.body)
        except Exception as error:  # a validator of the user's may raise anything
            return _undecodable(handler, attempt, error)
        try:
            async with asyncio.timeout(handler.timeout.total_seconds()):
                await self._handle(handler, attempt, payload)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: the handler awaited something that was cancelled.
            return _failed(handler, attempt, error)
        except Exception as error:
            return _failed(handler, attempt, error)
        return None

    async def _handle(self, handler: HandlerSpec, attempt: Attempt, payload: Message) -> None:
        message = MessageOf(payload, message_id=attempt.message_id, attempt=attempt.number, topic=handler.topic)
        data = MessageBusTransactionData(
            topic=handler.topic, message=message, message_id=attempt.message_id, attempt=attempt.number
        )
        context = AppTransactionContext(transaction_data=data, controller=handler.controller, handler=handler.function)
        completed = False
        async with self._runtime.unit_of_work(context):
            controller = self._runtime.build(handler.controller)
            await handler.function(controller, payload if handler.takes_payload else message)
            completed = True
        if not completed:
            raise JararacaError(f"an interceptor swallowed the error of {handler}, so its work is not done")


def malformed(handler: HandlerSpec, problem: str) -> Dead:
    """The outcome for a message whose headers or size the bus refuses; logs the problem, which holds no body."""
    dead = Dead(reason="malformed", error_type="InvalidMessage", error_id=str(uuid4()), attempts=0)
    _log.error("a message for %s goes to the dead letters, error %s: %s", handler, dead.error_id, problem)
    return dead


def _undecodable(handler: HandlerSpec, attempt: Attempt, error: Exception) -> Dead:
    dead = Dead(reason="undecodable", error_type=type(error).__name__, error_id=str(uuid4()), attempts=0)
    problem = ""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = quoted(".".join(map(str, first["loc"])))
        problem = f": {error.error_count()} problems, the first is {first['type']} at {where}"
    _log.error(
        "message %s for %s goes to the dead letters, error %s: it is no %s%s",
        quoted(attempt.message_id), handler, dead.error_id, handler.message_type.__name__, problem,
    )  # fmt: skip
    return dead


def _failed(handler: HandlerSpec, attempt: Attempt, error: BaseException) -> Retry | Dead:
    error_id = str(uuid4())
    about = (quoted(attempt.message_id), handler, attempt.number, handler.max_attempts, error_id)
    if attempt.number >= handler.max_attempts:
        _log.error(
            "message %s failed in %s (attempt %d of %d, error %s) and goes to the dead letters", *about, exc_info=error
        )
        return Dead(
            reason="attempts_exhausted",
            error_type=type(error).__name__,
            error_id=error_id,
            attempts=attempt.number,
        )
    delay_s = next(islice(handler.backoff.delays(), attempt.number - 1, None))
    _log.warning(
        "message %s failed in %s (attempt %d of %d, error %s) and is retried in %.1f s", *about, delay_s, exc_info=error
    )
    return Retry(attempt=attempt.number + 1, delay_s=delay_s)


class Running:
    """Counts what runs, and waits until nothing does."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def none(self, within_s: float) -> bool:
        """Wait until nothing runs; whether that came within the time."""
        try:
            async with asyncio.timeout(within_s):
                await self._none.wait()
        except TimeoutError:
            return False
        return True
