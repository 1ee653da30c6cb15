"""A background task that is owned: restarted with backoff when it dies, counted, cancelled and awaited at the end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

__all__ = ["Backoff", "Supervised"]

_log = logging.getLogger("jararaca_ws")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential delays with full jitter, so that many instances do not come back in one moment.

    The jitter is the "full jitter" of Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015):
    each delay is drawn evenly between zero and the exponential bound; here never less than a tenth of that bound.
    """

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 10.0

    def delays(self) -> Iterator[float]:
        """An endless series of delays, in seconds."""
        bound = self.first_s
        while True:
            yield random.uniform(bound / 10, bound)
            bound = min(bound * self.factor, self.max_s)


class Supervised:
    """Runs ``work`` for ever: when it raises or returns, it is run again after a backoff.

    The work calls `mark_healthy` once it is up; that resets the backoff. Cancelling is the only way to end it:
    `stop` cancels and awaits.

    Attributes:
        problem: why the work last ended; None where it never has, or is up again.
    """

    def __init__(
        self, name: str, work: Callable[[Supervised], Awaitable[None]], backoff: Backoff | None = None
    ) -> None:
        self.name = name
        self.healthy = False
        self.restarts = 0
        self.problem: str | None = None
        self._work = work
        self._backoff = backoff or Backoff()
        self._delays = self._backoff.delays()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task in the running loop. A second call while it runs does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the task and wait until it has ended. Safe to call twice, and when it was never started."""
        task, self._task = self._task, None
        self.healthy = False
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def mark_healthy(self) -> None:
        """The work is up: readiness is green, and the next failure begins with a short delay."""
        self.healthy = True
        self.problem = None
        self._delays = self._backoff.delays()

    async def _run(self) -> None:
        # Not `while True`: a TaskGroup in the work that is failing already swallows a cancellation (Python 3.11).
        while self._task is not None:
            try:
                await self._work(self)
                self.problem = "it returned"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self.problem = "something in it was cancelled"
            except Exception as error:
                self.problem = f"{type(error).__name__}: {error}"
            if self._task is None:
                return
            self.healthy = False
            self.restarts += 1
            delay = next(self._delays)
            _log.warning("%s ended (%s); restart %d in %.1f s", self.name, self.problem, self.restarts, delay)
            await asyncio.sleep(delay)
