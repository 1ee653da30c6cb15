"""Whether a WebSocket may be taken on: asked once for each, before anything else is done for it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from starlette.exceptions import HTTPException

from jararaca_ws.backends.base import WebSocketConnectionBackend
from jararaca_ws.backends.limits import LimitingBackend
from jararaca_ws.errors import ConfigurationError, LimitReached
from jararaca_ws.limits.addresses import address_of
from jararaca_ws.limits.claims import Claims
from jararaca_ws.limits.handshakes import HandshakePace
from jararaca_ws.limits.rates import Rate
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["Admission"]

_log = logging.getLogger("jararaca_ws")

_SAID_EVERY_S = 10.0

_TOTAL = "total"
_ADDRESS = "address:"
_USER = "user:"


class Admission:
    """What stands before the handshakes of one instance: how fast they may come, and how many connections there may be.

    Args:
        clock: seconds, monotonic.

    Attributes:
        refused: how many handshakes were, because too many came at once.

    Raises:
        ConfigurationError: connections are limited, and the backend does not know how many there are.
    """

    def __init__(
        self,
        settings: WebSocketSettings,
        backend: WebSocketConnectionBackend,
        instance_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused = 0
        self._settings = settings
        self._pace = _pace(settings, clock)
        self._claims = _claims(settings, backend, instance_id)
        # What each connection holds; empty where nothing is limited.
        self._held: dict[WebSocketConnection, list[str]] = {}
        self._clock = clock
        self._said_at = -math.inf

    def start(self) -> None:
        if self._claims is not None:
            self._claims.start()

    async def stop(self) -> None:
        """Hold nothing any more; leave no task. The connections have closed."""
        if self._claims is not None:
            await self._claims.stop()

    async def admit(self, connection: WebSocketConnection) -> None:
        """Let a connection go on to its authentication and its handler.

        Raises:
            HTTPException: 503, with ``Retry-After``: too many handshakes at once.
            LimitReached: there are as many connections as there may be.
            BackendUnavailable: nobody knows how many there are, and instances may not count for themselves.
            ConnectionClosed: the client has gone meanwhile.
        """
        wait_s = 0.0 if self._pace is None else self._pace.take()
        if wait_s:
            self._say_refused()
            raise HTTPException(503, headers={"Retry-After": str(math.ceil(wait_s))})
        if self._claims is None:
            return
        limits: dict[str, int] = {}
        if self._settings.max_connections is not None:
            limits[_TOTAL] = self._settings.max_connections
        address = address_of(connection.scope)
        if self._settings.max_connections_per_address is not None and address is not None:
            limits[_ADDRESS + address] = self._settings.max_connections_per_address
        if limits:
            await self._claim(self._claims, connection, limits)

    async def identify(self, user_id: str, connection: WebSocketConnection) -> bool:
        """Let a connection be one of this user's; whether it was none before.

        Raises:
            LimitReached: the user has as many as there may be.
            BackendUnavailable, ConnectionClosed: as `admit`.
        """
        limit = self._settings.max_connections_per_user
        name = _USER + user_id
        if self._claims is None or limit is None or name in self._held.get(connection, ()):
            return False
        await self._claim(self._claims, connection, {name: limit})
        if self._held[connection].count(name) > 1:  # another call was faster
            self.leave_user(user_id, connection)
            return False
        return True

    def leave_user(self, user_id: str, connection: WebSocketConnection) -> None:
        """The connection is none of this user's any more; not having been one is no error."""
        held = self._held.get(connection, [])
        name = _USER + user_id
        if self._claims is not None and name in held:
            held.remove(name)
            self._claims.release([name])

    async def _claim(self, claims: Claims, connection: WebSocketConnection, limits: dict[str, int]) -> None:
        full = await claims.claim(limits)
        if full is not None:
            raise LimitReached(_setting(full), limits[full])
        if connection.closed.is_set():
            claims.release(limits)
            raise connection.end()
        self._held.setdefault(connection, []).extend(limits)
        connection.on_closed(self._let_go)

    def _let_go(self, connection: WebSocketConnection) -> None:
        held: Iterable[str] = self._held.pop(connection, ())
        if self._claims is not None:
            self._claims.release(held)

    def _say_refused(self) -> None:
        self.refused += 1
        now = self._clock()
        if now >= self._said_at + _SAID_EVERY_S:
            self._said_at = now
            _log.warning("handshakes come faster than handshake_rate: refused with 503 (%d so far)", self.refused)


def _pace(settings: WebSocketSettings, clock: Callable[[], float]) -> HandshakePace | None:
    """None where handshakes are not limited."""
    if settings.handshake_rate is None:
        return None
    return HandshakePace(Rate(settings.handshake_rate, timedelta(seconds=1), settings.handshake_burst), clock)


def _claims(settings: WebSocketSettings, backend: WebSocketConnectionBackend, instance_id: str) -> Claims | None:
    """None where connections are not limited."""
    limits = (settings.max_connections, settings.max_connections_per_user, settings.max_connections_per_address)
    if limits == (None, None, None):
        return None
    if not isinstance(backend, LimitingBackend):
        raise ConfigurationError(
            f"connections are limited, and a {type(backend).__name__} does not know how many there are",
            "it needs the method of LimitingBackend",
        )
    ttl_s = settings.limits_ttl.total_seconds()
    store = backend.limit_store(instance_id, ttl_ms=max(1, round(ttl_s * 1000)))
    return Claims(store, ttl_s, fail_open=settings.limits_fail_open)


def _setting(name: str) -> str:
    if name == _TOTAL:
        return "max_connections"
    return "max_connections_per_user" if name.startswith(_USER) else "max_connections_per_address"
