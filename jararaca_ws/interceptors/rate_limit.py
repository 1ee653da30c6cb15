"""How often clients may send: token buckets around the units of work, in this process or in the backend."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel

from jararaca_ws.backends.limits import RateLimitingBackend
from jararaca_ws.errors import BackendUnavailable, ConfigurationError, RateLimited
from jararaca_ws.interceptors.base import (
    AppTransactionContext,
    HttpTransactionData,
    TransactionData,
    WebSocketTransactionData,
)
from jararaca_ws.limits.addresses import address_of
from jararaca_ws.limits.rates import Buckets, Rate

__all__ = ["RateLimitInterceptor"]

_log = logging.getLogger("jararaca_ws")

_PATIENCE_S = 0.25
"""How long the backend may take to answer."""

_AWAY_S = 1.0
"""For so long it is not asked again where it has not."""

_WHO: Mapping[str, Callable[[WebSocketTransactionData], str | None]] = {
    "connection": lambda data: str(data.connection.id),
    # Who has not identified itself yet is one of its own.
    "user": lambda data: str(data.connection.id if data.connection.user_id is None else data.connection.user_id),
    "address": lambda data: address_of(data.websocket.scope),
}


class RateLimitInterceptor:
    """Refuses what clients send too often.

    Each message that a ``@Receive`` method or a router handles takes a token from the bucket of its sender, and so does
    what a client sends to rooms by itself, and each ``jararaca.join``. Where there is none it is not handled: the
    client is told ``jararaca.error`` with the code ``rate_limited`` and ``retry_after_ms``; one that goes on is closed
    with 4013 (``max_rate_limited``). HTTP requests, where they count too, are answered 429 with ``Retry-After``.
    Handshakes have limits of their own, and what an endpoint reads by itself is no unit of work.

    List it before interceptors that cost something, a database session's for example.

    Args:
        rate: of all messages of one sender that have no rate of their own.
        by: who counts as one sender: a connection, a user, on however many connections, or an address (IPv6: a /64).
            HTTP requests always count by address. Or a function of the transaction data that names the sender; None:
            not limited.
        per_type: rates of single message classes, each with a bucket of its own.
        excluded: message classes that are not limited.
        http: whether HTTP requests are.
        backend: keeps the buckets for all instances, in one round trip for each message: the one that the
            `WebSocketInterceptor` has. None: each process has buckets of its own. While the backend does not answer,
            each process has as well.
        name: tells the buckets of this interceptor from those of another in the same backend.
        max_buckets: that a process holds. Full ones take no memory.
        clock: seconds, monotonic.

    Raises:
        ConfigurationError: a rate or a ``by`` that is none, or a backend that keeps no buckets.
    """

    def __init__(
        self,
        rate: Rate,
        *,
        by: Literal["connection", "user", "address"] | Callable[[TransactionData], str | None] = "connection",
        per_type: Mapping[type[BaseModel], Rate] | None = None,
        excluded: Collection[type[BaseModel]] = (),
        http: bool = False,
        backend: RateLimitingBackend | None = None,
        name: str = "",
        max_buckets: int = 65_536,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        chosen: Any = by
        if not callable(chosen) and chosen not in _WHO:
            raise ConfigurationError(f"by={by!r} is none of {', '.join(_WHO)}, and no function")
        given: Any = backend
        if given is not None and not isinstance(given, RateLimitingBackend):
            raise ConfigurationError(
                f"a {type(given).__name__} keeps no buckets", "it needs the method of RateLimitingBackend"
            )
        rates: tuple[Any, ...] = (rate, *(per_type or {}).values())
        for one in rates:
            if not isinstance(one, Rate):
                raise ConfigurationError(f"{one!r} is not a Rate", "write Rate(100, timedelta(minutes=1))")
        self._rate = rate
        self._by = by
        self._per_type = dict(per_type or {})
        self._excluded = frozenset(excluded)
        self._http = http
        self._backend = backend
        self._name = name
        self._buckets = Buckets(max_buckets, clock)
        self._clock = clock
        self._away_until = clock()

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        """Let a unit of work begin, or refuse it.

        Raises:
            RateLimited: there is no token.
        """
        data = app_context.transaction_data
        bucket = self._bucket(data)
        wait_s = 0.0 if bucket is None else await self._take(*bucket)
        if wait_s:
            raise RateLimited(timedelta(seconds=wait_s), "messages" if data.context_type == "websocket" else "requests")
        yield

    def _bucket(self, data: TransactionData) -> tuple[str, Rate] | None:
        """From which bucket a unit of work takes a token; None: from none."""
        rate, kind = self._rate, ""
        if isinstance(data, WebSocketTransactionData):
            cls = type(data.message)
            if data.message is None or cls in self._excluded:
                return None
            if cls in self._per_type:
                rate, kind = self._per_type[cls], f"{cls.__module__}.{cls.__qualname__}"
        elif not (self._http and isinstance(data, HttpTransactionData)):
            return None
        who = self._who(data)
        return None if who is None else (f"{self._name}:{data.context_type}:{kind}:{who}", rate)

    def _who(self, data: HttpTransactionData | WebSocketTransactionData) -> str | None:
        if callable(self._by):
            return self._by(data)
        if isinstance(data, HttpTransactionData):
            return address_of(data.request.scope)
        return _WHO[self._by](data)

    async def _take(self, key: str, rate: Rate) -> float:
        if self._backend is None or self._clock() < self._away_until:
            return self._buckets.take(key, rate)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._backend.take_token(key, rate)
        except (BackendUnavailable, TimeoutError) as error:
            self._away_until = self._clock() + _AWAY_S
            _log.warning("rates are limited by each process for itself, the backend does not answer: %s", error)
            return self._buckets.take(key, rate)
