"""Whether a WebSocket may be taken on: asked once for each, before anything else is done for it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta

from starlette.exceptions import HTTPException

from jararaca_ws.limits.handshakes import HandshakePace
from jararaca_ws.limits.rates import Rate
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["Admission"]

_log = logging.getLogger("jararaca_ws")

_SAID_EVERY_S = 10.0


class Admission:
    """What stands before the handshakes of one instance.

    Args:
        clock: seconds, monotonic.

    Attributes:
        refused: how many handshakes were, because too many came at once.
    """

    def __init__(self, settings: WebSocketSettings, clock: Callable[[], float] = time.monotonic) -> None:
        rate = settings.handshake_rate
        # None where handshakes are not limited.
        self._pace = (
            None if rate is None else HandshakePace(Rate(rate, timedelta(seconds=1), settings.handshake_burst), clock)
        )
        self.refused = 0
        self._clock = clock
        self._said_at = -math.inf

    async def admit(self, connection: WebSocketConnection) -> None:
        """Let a connection go on to its authentication and its handler.

        Raises:
            HTTPException: 503, with ``Retry-After``: too many handshakes at once.
        """
        wait_s = 0.0 if self._pace is None else self._pace.take()
        if wait_s:
            self._say_refused()
            raise HTTPException(503, headers={"Retry-After": str(math.ceil(wait_s))})

    def _say_refused(self) -> None:
        self.refused += 1
        now = self._clock()
        if now >= self._said_at + _SAID_EVERY_S:
            self._said_at = now
            _log.warning("handshakes come faster than handshake_rate: refused with 503 (%d so far)", self.refused)
