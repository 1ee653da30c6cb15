"""Asking all instances for their statistics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from itertools import count

from pydantic import ValidationError

from jararaca_ws.commands import Answer, Command, Report
from jararaca_ws.errors import Unavailable
from jararaca_ws.figures import InstanceStatistics, Statistics, total_of
from jararaca_ws.rooms import ALL_INSTANCES

__all__ = ["Surveys"]

_log = logging.getLogger("jararaca_ws")


class _Survey:
    """Attributes:
    expected: how many other instances there are; None until it is known, and where it cannot be.
    """

    def __init__(self) -> None:
        self.answers: dict[str, InstanceStatistics] = {}
        self.expected: int | None = None
        self.complete = asyncio.Event()

    def check(self) -> None:
        if self.expected is not None and len(self.answers) >= self.expected:
            self.complete.set()


class Surveys:
    """What this instance has asked all others.

    Args:
        instance_id: of this instance.
        command: publishes a command to a room of ours.
        subscribers: how many instances receive a room; None where the backend cannot say.
        own: the statistics of this instance.
        reply: publishes an answer to another instance, soon.
    """

    def __init__(
        self,
        instance_id: str,
        command: Callable[[list[str], Command], Awaitable[None]],
        subscribers: Callable[[str], Awaitable[int]] | None,
        own: Callable[[], InstanceStatistics],
        reply: Callable[[str, Answer], None],
    ) -> None:
        self._instance_id = instance_id
        self._command = command
        self._subscribers = subscribers
        self._own = own
        self._reply = reply
        self._ids = count()
        self._open: dict[str, _Survey] = {}

    async def statistics(self, timeout: timedelta) -> Statistics:
        """Ask all; returns when all have answered, at the latest after the timeout. Raises nothing."""
        call = f"{self._instance_id}-s{next(self._ids):x}"
        survey = self._open[call] = _Survey()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout.total_seconds()):
                    await self._ask(call, survey)
        finally:
            del self._open[call]
        instances = (self._own(), *(survey.answers[one] for one in sorted(survey.answers)))
        missing = None if survey.expected is None else max(0, survey.expected - len(survey.answers))
        return Statistics(total=total_of(instances), instances=instances, missing=missing)

    async def _ask(self, call: str, survey: _Survey) -> None:
        try:
            await self._command([ALL_INSTANCES], Report(call=call, instance=self._instance_id))
            if self._subscribers is not None:
                survey.expected = max(0, await self._subscribers(ALL_INSTANCES) - 1)
        except Unavailable as error:
            _log.warning("the other instances cannot be asked for their statistics: %s", error)
            return
        survey.check()
        await survey.complete.wait()

    def asked(self, question: Report) -> None:
        """Answer another instance; our own question comes back to us as well."""
        if question.instance != self._instance_id:
            self._reply(question.instance, Answer(call=question.call, text=self._own().model_dump_json()))

    def answered(self, answer: Answer) -> bool:
        """Whether this is an answer to one of our questions, of which it takes care."""
        survey = self._open.get(answer.call)
        if survey is None:
            return False
        try:
            statistics = InstanceStatistics.model_validate_json(answer.text)
        except ValidationError:
            _log.warning("an instance has answered with what are no statistics")
        else:
            survey.answers[statistics.instance_id] = statistics
            survey.check()
        return True
