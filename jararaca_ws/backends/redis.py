"""Redis between the instances: one Redis channel per room, and one for broadcasts."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import redis
from redis.asyncio import Redis

from jararaca_ws.backends.base import (
    BroadcastFunc,
    Entry,
    EntryFunc,
    GapFunc,
    Publication,
    Replay,
    SendFunc,
    StreamPosition,
)
from jararaca_ws.backends.redis_history import RedisHistory
from jararaca_ws.backends.redis_keys import DEFAULT_PREFIX, Channels, Keys
from jararaca_ws.backends.redis_link import Link
from jararaca_ws.backends.redis_pipeline import RedisPipeline
from jararaca_ws.backends.redis_scripts import Command
from jararaca_ws.backends.redis_subscriber import RedisSubscriber
from jararaca_ws.protocol import decode_publication, encode_publication

__all__ = ["RedisWebSocketConnectionBackend"]

_log = logging.getLogger("jararaca_ws")

_REMEMBERED = 20_000
"""How many publications an instance remembers at least, to hand over each once. Copies arrive side by side; second
tries, within the publish timeout."""


class RedisWebSocketConnectionBackend:
    """Carries frames through Redis pub/sub, and keeps in Redis streams what is published with a `Retention`.

    A room is a Redis channel, ``<send_pubsub_channel>:<room>``; the room's name is taken literally, whatever its
    characters. An instance is subscribed to exactly the rooms in which it has members, and to the broadcast channel.

    Guarantee: at most once, in order for each room and sender (P1). When the connection was lost, or Redis was silent
    for longer than the probe interval, every subscribed room is reported as a gap after it receives again. What has a
    retention is appended to its room's history and published in one step (P2); a publication that is tried again, by
    us or by who keyed it, is handed over once.

    Args:
        conn: the client whose server, credentials and TLS settings are used, or a ``redis://`` URL. Its pool is not
            used: the backend opens two connections of its own, and a third to read histories, and closes them.
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

    Attributes:
        dropped: payloads on our Redis channels that were not ours, or of another version.

    Raises:
        ConfigurationError: a URL that is none, Redis channels that could be taken for one another, braces in a prefix.
    """

    def __init__(
        self,
        conn: Redis | str,
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
        self._channels = Channels(
            f"{names}:send" if send_pubsub_channel is None else send_pubsub_channel,
            f"{names}:broadcast" if broadcast_pubsub_channel is None else broadcast_pubsub_channel,
        )
        self.dropped = 0
        link = Link(conn, connect_timeout)
        self._publisher = RedisPipeline(
            link, name="publisher", timeout=publish_timeout, max_pending_bytes=max_pending_bytes
        )
        self._reader = RedisPipeline(link, name="reader", timeout=publish_timeout, max_pending_bytes=max_pending_bytes)
        self._history = RedisHistory(
            self._reader,
            Keys(prefix or send_pubsub_channel or names),
            meta_ttl=history_meta_ttl,
            idempotency_window=idempotency_window,
            retry_window=2 * publish_timeout,
        )
        self._subscriber = RedisSubscriber(
            link,
            deliver=self._deliver,
            report_gap=self._report_gap,
            # No room can have the name of this channel either: it does not begin with the prefix.
            probe=(self._channels.broadcast + b":probe:" + secrets.token_hex(8).encode(), self._publish),
            probe_interval=probe_interval,
            timeout=subscribe_timeout,
            linger=unsubscribe_linger,
        )
        # None before configure and after shutdown.
        self._broadcast_func: BroadcastFunc | None = None
        self._send_func: SendFunc | None = None
        self._entry_func: EntryFunc | None = None
        self._gap_func: GapFunc | None = None
        self._handed_over = _Remembered(_REMEMBERED)
        # Ids for what comes without one.
        self._nonce = secrets.token_urlsafe(8)
        self._ids = count()

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether Redis was heard from lately and takes what is published."""
        return self._subscriber.healthy and not self._publisher.full

    @property
    def lag_s(self) -> float | None:
        """Seconds that the watchdog's last message took through Redis and back; None before the first."""
        return self._subscriber.lag_s

    @property
    def pipelines(self) -> int:
        """How many pipelines of publishes have been written."""
        return self._publisher.pipelines

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._broadcast_func = broadcast
        self._send_func = send

    def on_entry(self, deliver: EntryFunc) -> None:
        self._entry_func = deliver

    def on_gap(self, report: GapFunc) -> None:
        self._gap_func = report

    async def start(self) -> None:
        """Connect, and subscribe to broadcasts.

        Raises:
            BackendUnavailable: Redis cannot be reached.
        """
        await self._greet()
        self._publisher.start()
        self._reader.start()
        self._subscriber.start()
        await self._subscriber.subscribe([self._channels.broadcast])

    async def _greet(self) -> None:
        link = self._subscriber.link
        connection = await link.open()
        try:
            server = await link.server(connection)
        finally:
            await connection.disconnect(nowait=True)
        _log.info(
            "Redis %s (%s), redis-py %s: pub/sub on one Redis channel for each room, histories in streams",
            server.version or "?",
            server.mode or "mode unknown",
            redis.__version__,
        )

    async def shutdown(self) -> None:
        await self._subscriber.stop()
        await self._publisher.stop()
        await self._reader.stop()
        self._broadcast_func = self._send_func = self._entry_func = self._gap_func = None
        self._handed_over = _Remembered(_REMEMBERED)

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def broadcast(self, message: bytes) -> None:
        payload = encode_publication(self._new_id(), [""], message)
        await self._publisher.execute([("PUBLISH", self._channels.broadcast, payload)], len(payload))

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
                commands += [("PUBLISH", channel, payload) for channel in channels]
            else:
                commands += self._history.commands(publication, channels)
            size += len(message) * len(rooms)
        await self._publisher.execute(commands, size)

    def _publish(self, channel: bytes, payload: bytes) -> asyncio.Future[Any]:
        return self._publisher.submit([("PUBLISH", channel, payload)])

    def _new_id(self) -> str:
        return f"{self._nonce}-{next(self._ids):x}"

    # --- history ------------------------------------------------------------------------------------------------------

    async def history(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        return await self._history.read(room, since, limit)

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        return await self._history.positions(rooms)

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def subscribe(self, rooms: Collection[str]) -> None:
        await self._subscriber.subscribe([self._channels.of(room) for room in rooms])

    def unsubscribe(self, rooms: Collection[str]) -> None:
        self._subscriber.unsubscribe([self._channels.of(room) for room in rooms])

    async def _deliver(self, channel: bytes, payload: bytes) -> None:
        """One payload to the manager. Garbage concerns nobody else: the reader goes on."""
        is_broadcast = channel == self._channels.broadcast
        room = "" if is_broadcast else self._channels.room(channel)
        try:
            received = decode_publication(room, payload)
        except ValueError as error:
            self._drop(error)
            return
        publication_id, rooms, position, data = received
        if position is not None and publication_id is not None and self._entry_func is not None:
            await self._entry_func(room, Entry(position, publication_id, data), rooms)
        elif publication_id is None or self._handed_over.add(publication_id):
            if not is_broadcast and self._send_func is not None:
                await self._send_func(rooms, data)
            elif is_broadcast and self._broadcast_func is not None:
                await self._broadcast_func(data)

    def _drop(self, error: ValueError) -> None:
        self.dropped += 1
        if self.dropped == 1 or self.dropped % 1000 == 0:
            _log.warning(
                "dropped a payload on a Redis channel of ours, %d so far: %s", self.dropped, type(error).__name__
            )

    def _report_gap(self, channels: Collection[bytes]) -> None:
        rooms = [self._channels.room(channel) for channel in channels if self._channels.is_room(channel)]
        _log.warning("the connection to Redis was lost: messages to %d rooms may have been missed", len(rooms))
        if self._gap_func is not None:
            self._gap_func(rooms, broadcasts=True)


class _Remembered:
    """The last publications that were handed over: at least so many, at most twice as many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, publication_id: str) -> bool:
        """Remember one; False where it is remembered already."""
        if publication_id in self._newer or publication_id in self._older:
            return False
        if len(self._newer) >= self._size:
            self._newer, self._older = set(), self._newer
        self._newer.add(publication_id)
        return True
