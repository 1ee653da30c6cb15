"""Redis between the instances: one Redis channel per room, and one for broadcasts."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from itertools import count

import redis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from jararaca_ws.backends.base import BroadcastFunc, EntryFunc, GapFunc, Publication, Replay, SendFunc, StreamPosition
from jararaca_ws.backends.limits import LimitStore
from jararaca_ws.backends.presence import PresenceStore
from jararaca_ws.backends.redis_cluster import ClusterPipeline, ClusterSubscriber, ShardedChannels
from jararaca_ws.backends.redis_history import RedisHistory
from jararaca_ws.backends.redis_keys import DEFAULT_PREFIX, Channels, Keys
from jararaca_ws.backends.redis_limits import RedisLimits
from jararaca_ws.backends.redis_link import Link
from jararaca_ws.backends.redis_pipeline import RedisPipeline
from jararaca_ws.backends.redis_presence import RedisPresence
from jararaca_ws.backends.redis_receiver import Receiver
from jararaca_ws.backends.redis_scripts import KEEP, TAKE, TAKE_VALUE, Call, Command
from jararaca_ws.backends.redis_subscriber import RedisSubscriber
from jararaca_ws.backends.redis_topology import Topology
from jararaca_ws.configuring import EffectiveSetting, written
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.health import Health
from jararaca_ws.limits.rates import Rate
from jararaca_ws.wire.publications import encode_publication

__all__ = ["RedisWebSocketConnectionBackend"]

_log = logging.getLogger("jararaca_ws")


class RedisWebSocketConnectionBackend:
    """Carries frames through Redis pub/sub, and keeps in Redis streams what is published with a `Retention`.

    A room is a Redis channel, ``<send_pubsub_channel>:<room>``; the room's name is taken literally, whatever its
    characters. An instance is subscribed to exactly the rooms in which it has members, and to the broadcast channel.

    Guarantee: at most once, in order for each room and sender (P1). When the connection was lost, or Redis was silent
    for longer than the probe interval, every subscribed room is reported as a gap after it receives again. What has a
    retention is appended to its room's history and published in one step (P2); a publication that is tried again, by
    us or by who keyed it, is handed over once.

    Args:
        conn: the client whose server, credentials and TLS settings are used, or a ``redis://`` URL. A client from
            ``Sentinel(...).master_for(...)`` follows its master; with a ``RedisCluster`` (Redis 7 or newer) each room
            is at the node that has its slot. The client's own connections are not used: the backend opens two (in a
            cluster, to each node), and a third to read histories, and closes them.
        send_pubsub_channel: prefix of the rooms' Redis channels; None: ``<prefix>:send``.
        broadcast_pubsub_channel: the Redis channel of broadcasts; None: ``<prefix>:broadcast``.
        prefix: of all keys, and of the Redis channels that are not given. Applications that share a Redis each have
            one. None: ``send_pubsub_channel`` where that is given, else ``jararaca:websocket``.
        probe_interval: how often the watchdog asks Redis for a sign of life; silence is found within two of them.
        connect_timeout: for a connection to be made.
        publish_timeout: how long a publication is tried; also a read of a history.
        subscribe_timeout: for a subscription to be confirmed; reconnecting included.
        unsubscribe_linger: how long a room that has emptied stays subscribed, in case it fills again.
        max_pending_bytes: of payloads that wait to be published; more are refused at once.
        history_meta_ttl: how long after its last message a room still knows its position, so that who comes back is
            told that something was missed.
        idempotency_window: how long the id of a keyed publication is remembered.

    Raises:
        ConfigurationError: a URL that is none, Redis channels that could be taken for one another, braces in a prefix.
    """

    def __init__(
        self,
        conn: Redis | RedisCluster | str,
        send_pubsub_channel: str | None = None,
        broadcast_pubsub_channel: str | None = None,
        *,
        prefix: str | None = None,
        probe_interval: timedelta = timedelta(seconds=2),
        connect_timeout: timedelta = timedelta(seconds=3),
        publish_timeout: timedelta = timedelta(seconds=5),
        subscribe_timeout: timedelta = timedelta(seconds=5),
        unsubscribe_linger: timedelta = timedelta(seconds=1),
        max_pending_bytes: int = 64 * 1024 * 1024,
        history_meta_ttl: timedelta = timedelta(days=30),
        idempotency_window: timedelta = timedelta(minutes=5),
    ) -> None:
        names = prefix or DEFAULT_PREFIX
        is_cluster = isinstance(conn, RedisCluster)
        self._channels = (ShardedChannels if is_cluster else Channels)(
            f"{names}:send" if send_pubsub_channel is None else send_pubsub_channel,
            f"{names}:broadcast" if broadcast_pubsub_channel is None else broadcast_pubsub_channel,
        )
        self._receiver = Receiver(self._channels)
        self._publish = "SPUBLISH" if is_cluster else "PUBLISH"
        make_subscriber = partial(
            RedisSubscriber,
            deliver=self._receiver.deliver,
            report_gap=self._report_gap,
            probe_interval=probe_interval,
            timeout=subscribe_timeout,
            linger=unsubscribe_linger,
        )
        self._connect(conn, make_subscriber, connect_timeout, publish_timeout, subscribe_timeout, max_pending_bytes)
        self._keys = Keys(prefix or send_pubsub_channel or names)
        self._history = RedisHistory(
            self._reader,
            self._keys,
            meta_ttl=history_meta_ttl,
            idempotency_window=idempotency_window,
            retry_window=2 * publish_timeout,
            publish=self._publish,
        )
        self._set: dict[str, object] = {
            "prefix": prefix or send_pubsub_channel or names,
            "probe_interval": probe_interval,
            "connect_timeout": connect_timeout,
            "publish_timeout": publish_timeout,
            "subscribe_timeout": subscribe_timeout,
            "unsubscribe_linger": unsubscribe_linger,
            "max_pending_bytes": max_pending_bytes,
            "history_meta_ttl": history_meta_ttl,
            "idempotency_window": idempotency_window,
        }
        # None before configure.
        self._gap_func: GapFunc | None = None
        # Ids for what comes without one.
        self._nonce = secrets.token_urlsafe(8)
        self._ids = count()

    def _connect(
        self,
        conn: Redis | RedisCluster | str,
        make_subscriber: Callable[..., RedisSubscriber],
        connect_timeout: timedelta,
        publish_timeout: timedelta,
        subscribe_timeout: timedelta,
        max_pending_bytes: int,
    ) -> None:
        """Make what talks to the server, or to each node of a cluster. Nothing is opened before the start."""
        self._publisher: RedisPipeline | ClusterPipeline
        self._reader: RedisPipeline | ClusterPipeline
        self._subscriber: RedisSubscriber | ClusterSubscriber
        # Where the server is; in a cluster, which nodes there are.
        self._server: Link | Topology
        if isinstance(conn, RedisCluster):
            topology = self._server = Topology(conn, connect_timeout)
            sharded = partial(ClusterPipeline, topology, timeout=publish_timeout, max_pending_bytes=max_pending_bytes)
            self._publisher, self._reader = sharded(name="publisher"), sharded(name="reader")
            self._subscriber = ClusterSubscriber(topology, partial(make_subscriber, probe=None), subscribe_timeout)
            return
        link = self._server = Link.of(conn, connect_timeout)
        pipeline = partial(RedisPipeline, link, timeout=publish_timeout, max_pending_bytes=max_pending_bytes)
        publisher = self._publisher = pipeline(name="publisher")
        self._reader = pipeline(name="reader")
        # No room can have the name of this channel either: it does not begin with the prefix.
        probe = self._channels.broadcast + b":probe:" + secrets.token_hex(8).encode()
        self._subscriber = make_subscriber(
            link, probe=(probe, lambda nonce: publisher.submit([("PUBLISH", probe, nonce)]))
        )

    def effective(self) -> list[EffectiveSetting]:
        """How it is set, by its arguments; without passwords."""
        given = {"conn": str(self._server), **self._set}
        return [EffectiveSetting(name, written(value), "argument or default") for name, value in given.items()]

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether Redis was heard from lately and takes what is published."""
        return self._subscriber.healthy and self._publisher.healthy and self._reader.healthy

    def health(self) -> list[Health]:
        reason = ""
        if self._publisher.full:
            reason = "it is out of memory"
        elif not self._subscriber.healthy:
            reason = "it does not answer, or refuses what is published"
        elif not self.healthy:
            reason = "a background task has died and is started again"
        return [Health(name="redis", healthy=not reason, reason=reason)]

    @property
    def dropped(self) -> int:
        """Payloads on our Redis channels that were not ours, or of another version."""
        return self._receiver.dropped

    @property
    def lag_s(self) -> float | None:
        """Seconds that the watchdog's last message took through Redis and back; None before the first."""
        return self._subscriber.lag_s

    @property
    def pipelines(self) -> int:
        """How many pipelines of publishes have been written."""
        return self._publisher.pipelines

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._receiver.broadcast = broadcast
        self._receiver.send = send

    def on_entry(self, deliver: EntryFunc) -> None:
        self._receiver.entry = deliver

    def on_gap(self, report: GapFunc) -> None:
        self._gap_func = report

    async def start(self) -> None:
        """Connect, and subscribe to broadcasts.

        Raises:
            BackendUnavailable: Redis cannot be reached.
        """
        if isinstance(self._server, Topology):
            await self._server.start()
        await self._greet()
        self._publisher.start()
        self._reader.start()
        self._subscriber.start()
        await self._subscriber.subscribe([self._channels.broadcast])

    async def _greet(self) -> None:
        """Say once what is there and what is made of it."""
        link = self._server if isinstance(self._server, Link) else next(iter(self._server.links.values()))
        connection = await link.open()
        try:
            version, mode, _ = await link.server(connection)
        finally:
            await connection.disconnect(nowait=True)
        is_sharded = self._publish == "SPUBLISH"
        if is_sharded and version and int(version.partition(".")[0]) < 7:
            raise BackendUnavailable(f"Redis {version} has no sharded pub/sub: a cluster needs Redis 7 or newer")
        _log.info(
            "Redis %s (%s), redis-py %s: %s, one Redis channel for each room; histories in streams",
            version or "of unknown version",
            mode or "mode unknown",
            redis.__version__,
            "sharded pub/sub" if is_sharded else "pub/sub",
        )

    async def shutdown(self) -> None:
        await self._subscriber.stop()
        await self._publisher.stop()
        await self._reader.stop()
        if isinstance(self._server, Topology):
            await self._server.stop()
        self._receiver.forget()

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def broadcast(self, message: bytes) -> None:
        payload = encode_publication(self._new_id(), [""], message)
        await self._publisher.execute([(self._publish, self._channels.broadcast, payload)], len(payload))

    async def send(self, rooms: list[str], message: bytes) -> None:
        await self.send_many([Publication(rooms, message, self._new_id())])

    async def send_many(self, publications: Sequence[Publication]) -> None:
        commands: list[Command] = []
        size = 0
        for publication in publications:
            rooms, message, publication_id, retention, is_keyed = publication
            channels = [self._channels.of(room) for room in rooms]
            if retention is None and not is_keyed:
                payload = encode_publication(publication_id, rooms, message)
                commands += [(self._publish, channel, payload) for channel in channels]
            else:
                commands += self._history.commands(publication, channels)
            size += len(message) * len(rooms)
        await self._publisher.execute(commands, size)

    def _new_id(self) -> str:
        return f"{self._nonce}-{next(self._ids):x}"

    # --- history ------------------------------------------------------------------------------------------------------

    async def history(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        return await self._history.read(room, since, limit)

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        return await self._history.positions(rooms)

    # --- presence -----------------------------------------------------------------------------------------------------

    def presence_store(self, instance_id: str, *, ttl_ms: int, grace_ms: int) -> PresenceStore:
        return RedisPresence(self._reader.execute, self._keys, instance_id, ttl_ms=ttl_ms, grace_ms=grace_ms)

    # --- limits -------------------------------------------------------------------------------------------------------

    async def take_token(self, key: str, rate: Rate) -> float:
        times = [round(seconds * 1_000_000) for seconds in (rate.interval_s, rate.depth_s)]
        [missing] = await self._reader.execute([Call(TAKE, (self._keys.bucket(key),), tuple(times))])
        return int(missing) / 1_000_000

    def limit_store(self, instance_id: str, *, ttl_ms: int) -> LimitStore:
        return RedisLimits(self._reader, self._keys, instance_id, ttl_ms=ttl_ms)

    # --- values -------------------------------------------------------------------------------------------------------

    async def keep(self, key: str, value: bytes, ttl_ms: int) -> None:
        await self._reader.execute([Call(KEEP, (self._keys.value(key),), (value, ttl_ms))])

    async def kept(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._reader.execute([("GET", self._keys.value(key)) for key in keys])

    async def take(self, key: str) -> bytes | None:
        # Where the reply is lost it is tried again, and finds nothing: a ticket is lost then, and never taken twice.
        [value] = await self._reader.execute([Call(TAKE_VALUE, (self._keys.value(key),), ())])
        return value if isinstance(value, bytes) else None

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def subscribe(self, rooms: Collection[str]) -> None:
        await self._subscriber.subscribe([self._channels.of(room) for room in rooms])

    def unsubscribe(self, rooms: Collection[str]) -> None:
        self._subscriber.unsubscribe([self._channels.of(room) for room in rooms])

    async def subscribers(self, room: str) -> int:
        kind = "SHARDNUMSUB" if self._publish == "SPUBLISH" else "NUMSUB"
        (reply,) = await self._reader.execute([("PUBSUB", kind, self._channels.of(room))])
        return int(reply[1])

    def _report_gap(self, channels: Collection[bytes]) -> None:
        rooms = [self._channels.room(channel) for channel in channels if self._channels.is_room(channel)]
        broadcasts = self._channels.broadcast in channels
        _log.warning("the connection to Redis was lost: messages to %d rooms may have been missed", len(rooms))
        if self._gap_func is not None:
            self._gap_func(rooms, broadcasts=broadcasts)
