"""A time limit for each of many pieces of work that one task does, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["TimeLimit"]


class TimeLimit:
    """What ``asyncio.timeout`` does, for work that is repeated and is nearly always in time.

    ::

        limit = TimeLimit()
        with limit(10.0):
            await ...

    One timer serves all the pieces: it is armed anew when it fires and finds another piece at work, not by each of
    them. Whoever has made it calls `stop` in the end.

    Args:
        ignored: called once, ``grace_s`` after a piece was cancelled, where it goes on all the same.

    Attributes:
        expired: whether the last piece was cancelled.
    """

    __slots__ = ("_cancelling", "_due_s", "_grace_s", "_ignored", "_seconds", "_task", "_timer", "expired")

    def __init__(self, ignored: Callable[[], None] | None = None, grace_s: float = 0.0) -> None:
        self._ignored = ignored
        self._grace_s = grace_s
        self._seconds: float | None = None
        # None while nothing with a limit is at work.
        self._due_s: float | None = None
        self.expired = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        # None unless it is armed.
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, seconds: float | None) -> TimeLimit:
        """The limit of the next piece, to be entered at once; None: it has none."""
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        self.expired = False
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._task = task = asyncio.current_task(loop)
            assert task is not None
            self._cancelling = task.cancelling()
            self._end_at(loop.time() + self._seconds, loop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._due_s = None
        if self.expired:
            assert self._task is not None
            # More than before: somebody else has cancelled the task as well, and that goes on.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    @property
    def running(self) -> bool:
        """Whether a piece is at work that has not been cancelled yet."""
        return self._due_s is not None and not self.expired

    def end_in(self, seconds: float) -> None:
        """Give the piece that is at work so many seconds from now."""
        loop = asyncio.get_running_loop()
        self._end_at(loop.time() + seconds, loop)

    def _end_at(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = due_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return  # it looks again when it fires
            self._timer.cancel()
        self._timer = loop.call_at(due_s, self._fire)

    def stop(self) -> None:
        """Leave no timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._due_s:
            self._timer = loop.call_at(self._due_s, self._fire)
        elif self.expired:
            if self._ignored is not None:
                self._ignored()
        else:
            self.expired = True
            assert self._task is not None
            self._task.cancel()
            if self._ignored is not None:
                self.end_in(self._grace_s)
