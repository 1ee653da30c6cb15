"""Hearing nothing for too long: redis-py would wait for ever."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from redis.exceptions import ResponseError

from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Supervised

__all__ = ["Watchdog"]

_log = logging.getLogger("jararaca_ws")


class Watchdog:
    """Asks for a nonce to come back, again and again. A server that is silent (frozen, cut off) is found within two
    intervals.

    Args:
        interval: between the answer and the next question, and the longest silence.
        ask: has the nonce sent on its way; the future says when that failed. None: it cannot fail by itself.

    Attributes:
        lag_s: how long the last nonce took from the question to its arrival; None before the first.
    """

    def __init__(self, interval: timedelta, ask: Callable[[bytes], asyncio.Future[Any] | None]) -> None:
        self.lag_s: float | None = None
        self._interval_s = interval.total_seconds()
        self._ask = ask
        # None before the first question.
        self._echo: asyncio.Future[None] | None = None
        self._nonce = b""
        self._replies = 0

    def read(self) -> None:
        """Something was read: the server is not silent."""
        self._replies += 1

    def heard(self, nonce: bytes) -> None:
        """A nonce has come back, maybe an old one."""
        if nonce == self._nonce and self._echo is not None and not self._echo.done():
            self._echo.set_result(None)

    async def watch(self, task: Supervised) -> None:
        """Mark the task healthy with each answer.

        Raises:
            BackendUnavailable: the server was silent for a whole interval.
        """
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._nonce = secrets.token_hex(12).encode()
            self._echo = loop.create_future()
            asked = self._ask(self._nonce)
            try:
                try:
                    await self._await_echo(self._echo, asked)
                finally:
                    if asked is not None:
                        asked.cancel()  # nobody will look at it any more, whatever becomes of it
            except ResponseError as error:
                # Redis is there but refuses to publish: receiving goes on, readiness is red.
                _log.warning("Redis refuses to publish: %s", error)
                task.healthy = False
            else:
                self.lag_s = loop.time() - started
                task.mark_healthy()
            await asyncio.sleep(self._interval_s)

    async def _await_echo(self, echo: asyncio.Future[None], asked: asyncio.Future[Any] | None) -> None:
        """Wait for the nonce; give up after a whole interval in which nothing at all was read.

        It is waited for in halves: when the event loop was blocked, both the timer and the data are due at once, and
        the reader gets another half to show that Redis was never silent.
        """
        quiet_halves = 0
        while not echo.done():
            before = self._replies
            waiting = {echo} if asked is None or asked.done() else {echo, asked}
            await asyncio.wait(waiting, timeout=self._interval_s / 2, return_when=asyncio.FIRST_COMPLETED)
            if asked is not None and asked in waiting and asked.done():
                _raise_failure(asked)
                continue
            quiet_halves = quiet_halves + 1 if self._replies == before else 0
            if quiet_halves == 2 and not echo.done():
                raise BackendUnavailable(f"Redis was silent for {self._interval_s:g} s")


def _raise_failure(asked: asyncio.Future[Any]) -> None:
    error = asked.exception()
    if error is not None:
        raise error.__cause__ if isinstance(error.__cause__, ResponseError) else error
