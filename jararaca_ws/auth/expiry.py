"""Tokens that expire while their connections last: each is warned, and closed if it does not do anything about it."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable

from jararaca_ws.auth.user import User
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.authentication import Expiring
from jararaca_ws.wire.protocol import CloseCode, encode

__all__ = ["Expiries"]

_PER_S = 4
"""Moments are rounded up to a quarter of a second, and connections of one moment looked at together."""


class Expiries:
    """The connections of one instance whose tokens expire. One timer for all of them; synchronous.

    Tokens say by the wall clock when they expire, and that may be set back or forward meanwhile: so it is read every
    second, while there is anybody to watch.

    Args:
        warning_s: how long before the end a client is warned.
        wall: seconds since 1970.
    """

    def __init__(self, warning_s: float, wall: Callable[[], float] = time.time) -> None:
        self._warning_s = warning_s
        self._wall = wall
        # By moment, who is to be looked at then; and for each connection which moment that is.
        self._due: dict[int, dict[WebSocketConnection, None]] = {}
        self._moment: dict[WebSocketConnection, int] = {}
        # The moments of `_due`, a heap.
        self._moments: list[int] = []
        # None while there is nobody to watch.
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._moment)

    def watch(self, connection: WebSocketConnection) -> None:
        """Look after a connection, or look again after its user has another token."""
        self.forget(connection)
        left_s = self._left_s(connection)
        if left_s is not None and connection.alive:
            self._put(connection, self._wall() + max(0.0, left_s - self._warning_s))
            if self._timer is None or self._moments[0] == self._moment[connection]:
                self._arm()

    def forget(self, connection: WebSocketConnection) -> None:
        """It has gone, or has another token; not being looked after is no error."""
        moment = self._moment.pop(connection, None)
        if moment is not None:
            del self._due[moment][connection]

    def left_s_of(self, user: User) -> float | None:
        """For how long a token counts; None: as long as its connection lasts."""
        return None if user.expires_at is None else user.expires_at.timestamp() - self._wall()

    def _left_s(self, connection: WebSocketConnection) -> float | None:
        return None if connection.user is None else self.left_s_of(connection.user)

    def stop(self) -> None:
        """Forget everybody; leave no timer."""
        self._due.clear()
        self._moment.clear()
        self._moments.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, connection: WebSocketConnection, at_s: float) -> None:
        moment = math.ceil(at_s * _PER_S)
        if moment not in self._due:
            self._due[moment] = {}
            heapq.heappush(self._moments, moment)
        self._due[moment][connection] = None
        self._moment[connection] = moment

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._moment:
            next_s = self._moments[0] / _PER_S - self._wall()
            self._timer = asyncio.get_running_loop().call_later(min(1.0, max(0.0, next_s)), self._look)

    def _look(self) -> None:
        try:
            while self._moments and self._moments[0] <= self._wall() * _PER_S:
                for connection in tuple(self._due.pop(heapq.heappop(self._moments))):
                    del self._moment[connection]
                    self._look_at(connection)
        finally:
            self._arm()

    def _look_at(self, connection: WebSocketConnection) -> None:
        left_s = self._left_s(connection)
        if left_s is None:
            return
        if left_s <= 0:
            connection.begin_close(CloseCode.TOKEN_EXPIRED, "token expired")
            return
        if left_s <= self._warning_s and connection.may_be_told:
            connection.enqueue(encode(Expiring(expires_in_ms=round(left_s * 1000))))
        # Not at once again, whatever the clock says.
        self._put(connection, self._wall() + (left_s if left_s <= self._warning_s else left_s - self._warning_s))
