"""Connections to Redis that are ours alone, made after the pattern of the user's client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from jararaca_ws.errors import BackendUnavailable, ConfigurationError

__all__ = ["Link", "Server", "unavailable"]


def unavailable(error: BaseException) -> BackendUnavailable:
    """Our error for what Redis, its client or the network raised. Their texts name hosts, never passwords."""
    if isinstance(error, BackendUnavailable):
        return error
    reason = str(error) or type(error).__name__
    return BackendUnavailable(reason if isinstance(error, RedisError) else f"{type(error).__name__}: {reason}")


class Server(NamedTuple):
    """What a server says of itself.

    Attributes:
        version: of Redis; empty where it does not say.
        mode: ``standalone``, ``sentinel`` or ``cluster``; empty where it does not say.
        run_id: another one after each start of its process, and on each replica.
    """

    version: str = ""
    mode: str = ""
    run_id: str = ""


class Link:
    """Opens connections to the server that a client points to.

    They do not come from the client's pool, so an exhausted pool stops neither publishing nor receiving. They never
    reconnect by themselves: redis-py does so silently, and whoever holds such a connection does not learn what it
    missed. They speak RESP2, which drains pub/sub faster than RESP3.
    """

    def __init__(self, make: Callable[..., AbstractConnection], options: dict[str, Any], timeout: timedelta) -> None:
        self._make = make
        self._timeout = timeout
        self._connect_timeout_s = timeout.total_seconds()
        self._options: dict[str, Any] = {
            **options,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,  # we bound every wait ourselves; a subscriber may rightly wait for ever
            "socket_connect_timeout": self._connect_timeout_s,
            "health_check_interval": 0,
            "decode_responses": False,
        }
        for option in ("retry_on_error", "retry_on_timeout"):
            self._options.pop(option, None)
        # What has to live as long as the connections; None: nothing.
        self._client: Redis | None = None

    @classmethod
    def of(cls, conn: Redis | str, timeout: timedelta) -> Link:
        """The way to the server of a client, or of a URL.

        Raises:
            ConfigurationError: it is neither.
        """
        if isinstance(conn, str):
            try:
                conn = Redis.from_url(conn)
            except ValueError:  # its text may hold a piece of the password
                raise ConfigurationError(
                    "the Redis URL cannot be used: its scheme, port or form is wrong",
                    "write it as redis://[user:password@]host[:port][/database], rediss://... for TLS, or unix://path; "
                    "%-encode what is special in a password",
                ) from None
        if not isinstance(conn, Redis):
            raise ConfigurationError(
                f"conn is a {type(conn).__module__}.{type(conn).__qualname__}",
                "pass a redis.asyncio.Redis client, a redis.asyncio.RedisCluster, or a redis:// URL",
            )
        link = cls(conn.connection_pool.connection_class, conn.connection_pool.connection_kwargs, timeout)
        link._client = conn  # the connections of a Sentinel's client refer to its pool weakly
        return link

    def to(self, host: str, port: int) -> Link:
        """The way to another server, with the same credentials and settings."""
        return Link(self._make, {**self._options, "host": host, "port": port}, self._timeout)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, where it has them."""
        return self._options.get("host", ""), int(self._options.get("port", 0))

    def __str__(self) -> str:
        """Where the server is, as a URL; without the password."""
        options = self._options
        user = f"{options.get('username') or ''}:***@" if options.get("password") else ""
        if "path" in options:
            return f"unix://{user}{options['path']}"
        if "connection_pool" in options:
            return f"the master {getattr(options['connection_pool'], 'service_name', '?')} of a Sentinel"
        is_tls = isinstance(self._make, type) and issubclass(self._make, SSLConnection)
        scheme = "rediss" if is_tls else "redis"
        return f"{scheme}://{user}{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"

    async def open(self) -> AbstractConnection:
        """A new connection, ready for commands.

        Raises:
            BackendUnavailable: the server cannot be reached, or refuses us.
        """
        connection = self._make(**self._options)
        try:
            # The client's own timeout is for TCP alone: a frozen server accepts, and then says nothing.
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py does not annotate it
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise BackendUnavailable(f"Redis did not answer within {self._connect_timeout_s:g} s") from error
            if isinstance(error, (RedisError, OSError)):
                raise unavailable(error) from error
            raise
        return connection

    async def server(self, connection: AbstractConnection) -> Server:
        """Ask the server at the other end of a connection who it is.

        Raises:
            BackendUnavailable: our user may not ask (the ACL rule ``+info``).
        """
        await connection.send_command("INFO", "server", check_health=False)
        try:
            reply: Any = await connection.read_response(disable_decoding=True)
        except NoPermissionError as error:
            raise unavailable(error) from error
        except ResponseError:  # an imitation of Redis that has no INFO
            return Server()
        lines = (line.partition(":") for line in reply.decode().splitlines())
        said = {name: value for name, _, value in lines}
        return Server(said.get("redis_version", ""), said.get("redis_mode", ""), said.get("run_id", ""))
