"""Waiting for something, where thousands of objects could be waited for and mostly nobody does.

An `asyncio.Event` holds a deque, 760 bytes, for each; an `asyncio.Queue` holds four.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Flag", "Mailbox", "Waiters"]

_T = TypeVar("_T")


class Waiters:
    """Those who wait until something has changed; woken all together."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # None while nobody waits.
        self._waiting: list[asyncio.Future[None]] | None = None

    async def wait(self) -> None:
        """Wait until `wake` is called. Cancellation concerns nobody else."""
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = []
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        finally:
            if not future.done() or future.cancelled():
                waiting.remove(future)

    def wake(self) -> None:
        """Let all of them go on."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for future in waiting:
                if not future.done():
                    future.set_result(None)


class Flag:
    """`asyncio.Event`, at a fraction of its memory."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let all who wait go on."""
        self._is_set = True
        self._waiters.wake()

    def clear(self) -> None:
        """Whoever waits from here on waits for the next `set`."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until it is set; not at all where it is."""
        while not self._is_set:
            await self._waiters.wait()


class Mailbox(Generic[_T]):
    """What an `asyncio.Queue` without a limit does, at a fraction of its memory while it is empty."""

    __slots__ = ("_items", "_waiters")

    def __init__(self) -> None:
        # None while it is empty.
        self._items: deque[_T] | None = None
        self._waiters = Waiters()

    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self._items is None

    def put_nowait(self, item: _T) -> None:
        """Put something in, behind the rest."""
        if self._items is None:
            self._items = deque()
        self._items.append(item)
        self._waiters.wake()

    async def get(self) -> _T:
        """Take the first out; waits for one. Cancellation takes nothing."""
        while self._items is None:
            await self._waiters.wait()
        item = self._items.popleft()
        if not self._items:
            self._items = None
        return item
