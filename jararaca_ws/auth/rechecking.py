"""After a lost link: whether somebody's token was revoked meanwhile, which this instance was not told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

from jararaca_ws.auth.revocation import Revocations, close_revoked
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["Rechecking"]

_AT_ONCE = 256


class Rechecking:
    """One for each manager. Its task, which runs from the first lost link on, asks the backend about all who are here.

    While that cannot be asked it tries again, with backoff.
    """

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        # A dict because a set has no order.
        self._waiting: dict[WebSocketConnection, None] = {}
        self._wanted = asyncio.Event()
        self._task = Supervised("websocket-rechecking", self._work, Backoff(max_s=2.0))

    @property
    def healthy(self) -> bool:
        """Whether everybody was asked about, or the asking goes on."""
        return not self._waiting or self._task.healthy

    def recheck(self, connections: Iterable[WebSocketConnection]) -> None:
        """Ask about them; they have shown a token."""
        self._waiting.update(dict.fromkeys(connections))
        if self._waiting:
            self._wanted.set()
            self._task.start()

    async def stop(self) -> None:
        await self._task.stop()
        self._waiting.clear()

    async def _work(self, task: Supervised) -> None:
        while True:
            if not self._waiting:
                task.mark_healthy()
                self._wanted.clear()
                await self._wanted.wait()
            await self._recheck_some()
            task.mark_healthy()

    async def _recheck_some(self) -> None:
        asked = [(one, one.user) for one in islice(self._waiting, _AT_ONCE)]
        answers = await self._revocations.are_revoked([user for _, user in asked if user is not None])
        for (connection, user), revoked in zip(asked, answers, strict=True):
            if revoked and connection.user is user:  # and has shown no other one since
                close_revoked(connection)
            self._waiting.pop(connection, None)
