"""One connection to RabbitMQ that comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from yarl import URL

from jararaca_ws.errors import BrokerUnavailable, ConfigurationError
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["RabbitMQConnection", "broker_url", "close", "closed"]

_HEARTBEAT_S = 30
_CLOSE_TIMEOUT_S = 2
_PROBE_INTERVAL_S = 2
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


def broker_url(url: str) -> URL:
    """The parsed address, with a heartbeat.

    Raises:
        ConfigurationError: it is no AMQP address. The error does not repeat it, for its password.
    """
    try:
        parsed = URL(url)
    except (TypeError, ValueError):
        parsed = URL()
    if parsed.scheme not in ("amqp", "amqps") or not parsed.host:
        raise ConfigurationError(
            "the RabbitMQ address is not usable", "write amqp://user:password@host:5672/vhost, or amqps:// for TLS"
        )
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(_HEARTBEAT_S))


def closed(resource: Any) -> asyncio.Future[str]:
    """Done, with the reason, once an aio-pika connection or channel is closed, by either side."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_close(_: object, reason: BaseException | None = None) -> None:
        if not future.done():
            future.set_result(f"{type(reason).__name__}: {reason}" if reason else "closed")

    resource.close_callbacks.add(on_close)
    if resource.is_closed:
        on_close(resource)
    return future


async def close(resource: Any) -> None:
    """Close an aio-pika connection or channel; a broker that does not answer must not hold up a shutdown."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await resource.close()


async def _round_trip(connection: AbstractConnection) -> None:
    channel = connection.channel(publisher_confirms=False)
    await channel.initialize()
    await channel.close()


class RabbitMQConnection:
    """Connects, and connects again with jittered backoff whenever the connection is lost.

    It is aio-pika's plain connection and not its robust one: that one retries at a fixed interval, which brings
    all instances back in one moment, and restores channels and consumers in ways that differ between its versions.
    Here whoever uses the connection makes its channel anew, with the same code as at the start.
    """

    def __init__(self, url: URL, purpose: str, connect_timeout: timedelta) -> None:
        self._url = url.update_query(name=f"jararaca-ws {purpose}")
        self._connect_timeout_s = connect_timeout.total_seconds()
        self._supervised = Supervised(f"RabbitMQ connection ({purpose})", self._keep, Backoff(max_s=5.0))
        self._connection: AbstractConnection | None = None
        self._up = asyncio.Event()
        self._silent = False

    @property
    def healthy(self) -> bool:
        """Connected, and not silent."""
        return self._supervised.healthy and not self._silent

    async def start(self) -> None:
        """Connect for the first time.

        Raises:
            BrokerUnavailable: at once, when that fails; the reason holds no password.
        """
        if self._connection is None:
            self._connection = await self._connect()
            self._supervised.start()

    async def stop(self) -> None:
        await self._supervised.stop()
        await self._close()

    async def get(self) -> AbstractConnection:
        """The open connection; waits while there is none."""
        while self._connection is None or self._connection.is_closed:
            self._up.clear()  # it may be set still, in the moment in which the connection is lost
            await self._up.wait()
        return self._connection

    async def _keep(self, supervised: Supervised) -> None:
        if self._connection is None:
            self._connection = await self._connect()
        lost = closed(self._connection)
        self._up.set()
        supervised.mark_healthy()
        try:
            await self._watch(self._connection, lost)
            raise BrokerUnavailable(lost.result())
        finally:
            self._up.clear()
            self._silent = False
            await self._close()

    async def _watch(self, connection: AbstractConnection, lost: asyncio.Future[str]) -> None:
        """Until the connection is lost, ask for a sign of life again and again.

        A broker that is silent (frozen, cut off, out of memory) is not healthy, and that is all: it is the heartbeat
        that gives the connection up, a minute later, and the handlers that run finish meanwhile.
        """
        while not lost.done():
            answer = asyncio.create_task(_round_trip(connection))
            either: list[asyncio.Future[Any]] = [answer, lost]
            try:
                for patience_s in (_PROBE_INTERVAL_S, None):
                    await asyncio.wait(either, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                    self._silent = not answer.done()
            finally:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)
            await asyncio.wait([lost], timeout=_PROBE_INTERVAL_S)

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close(connection)

    async def _connect(self) -> AbstractConnection:
        timeout_s = self._connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await aio_pika.connect(self._url)
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s"
        except (aio_pika.exceptions.AMQPConnectionError, OSError) as error:
            problem = str(error)
        except Exception as error:
            # The broker answered and hung up, as it does for a virtual host that does not exist.
            problem = (
                f"it refused the connection ({type(error).__name__}); does the virtual host {self._url.path!r} exist?"
            )
        if self._url.password:
            problem = problem.replace(self._url.password, "***")
        raise BrokerUnavailable(f"{self._url.host}:{self._url.port or _DEFAULT_PORTS[self._url.scheme]}: {problem}")
