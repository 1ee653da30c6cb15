"""Redis between the instances: one Redis channel per room, and one for broadcasts."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import timedelta

from redis.asyncio import Redis

from jararaca_ws.backends.base import BroadcastFunc, GapFunc, Publication, SendFunc
from jararaca_ws.backends.redis_link import Link
from jararaca_ws.backends.redis_publisher import RedisPublisher
from jararaca_ws.backends.redis_subscriber import RedisSubscriber
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.protocol import decode_publication, encode_publication

__all__ = ["RedisWebSocketConnectionBackend"]

_log = logging.getLogger("jararaca_ws")

_REMEMBERED = 10_000
"""How many sends to several rooms an instance remembers, to deliver each once. Their copies arrive side by side."""


class RedisWebSocketConnectionBackend:
    """Carries frames through Redis pub/sub.

    A room is a Redis channel, ``<send_pubsub_channel>:<room>``; the room's name is taken literally, whatever its
    characters. An instance is subscribed to exactly the rooms in which it has members, and to the broadcast channel.

    Guarantee: at most once, in order for each room and sender (P1). When the connection was lost, or Redis was silent
    for longer than the probe interval, every subscribed room is reported as a gap after it receives again.

    Args:
        conn: the client whose server, credentials and TLS settings are used, or a ``redis://`` URL. Its pool is not
            used: the backend opens two connections of its own, and closes them.
        send_pubsub_channel: prefix of the rooms' Redis channels.
        broadcast_pubsub_channel: the Redis channel of broadcasts. Applications that share a Redis set both.
        probe_interval: how often the watchdog asks Redis for a sign of life; silence is found within two of them.
        connect_timeout: for a connection to be made.
        publish_timeout: for a pipeline to be answered.
        subscribe_timeout: for a subscription to be confirmed; reconnecting included.
        unsubscribe_linger: how long a room that has emptied stays subscribed, in case it fills again.
        max_pending_bytes: of payloads that wait to be published; more are refused at once.

    Attributes:
        dropped: payloads on our Redis channels that were not ours, or of another version.

    Raises:
        ConfigurationError: a URL that is none, or Redis channels that could be taken for one another.
    """

    def __init__(
        self,
        conn: Redis | str,
        send_pubsub_channel: str = "jararaca:websocket:send",
        broadcast_pubsub_channel: str = "jararaca:websocket:broadcast",
        *,
        probe_interval: timedelta = timedelta(seconds=2),
        connect_timeout: timedelta = timedelta(seconds=3),
        publish_timeout: timedelta = timedelta(seconds=5),
        subscribe_timeout: timedelta = timedelta(seconds=5),
        unsubscribe_linger: timedelta = timedelta(seconds=1),
        max_pending_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._prefix = f"{send_pubsub_channel}:".encode()
        self._broadcast_channel = broadcast_pubsub_channel.encode()
        if not send_pubsub_channel or not broadcast_pubsub_channel or self._broadcast_channel.startswith(self._prefix):
            raise ConfigurationError(
                f"the Redis channels {send_pubsub_channel!r} and {broadcast_pubsub_channel!r} clash",
                "neither may be empty, and the broadcast channel may not begin with the send channel and a colon: "
                "a room could have that name",
            )
        self.dropped = 0
        link = Link(conn, connect_timeout)
        self._publisher = RedisPublisher(link, timeout=publish_timeout, max_pending_bytes=max_pending_bytes)
        self._subscriber = RedisSubscriber(
            link,
            deliver=self._deliver,
            report_gap=self._report_gap,
            submit=lambda channel, payload: self._publisher.submit([(channel, payload)]),
            # No room can have this name either: it does not begin with the prefix.
            probe_channel=self._broadcast_channel + b":probe:" + secrets.token_hex(8).encode(),
            probe_interval=probe_interval,
            timeout=subscribe_timeout,
            linger=unsubscribe_linger,
        )
        # None before configure and after shutdown.
        self._broadcast_func: BroadcastFunc | None = None
        self._send_func: SendFunc | None = None
        self._gap_func: GapFunc | None = None
        self._delivered: OrderedDict[str, None] = OrderedDict()

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether Redis was heard from lately and takes what is published."""
        return self._subscriber.healthy

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

    def on_gap(self, report: GapFunc) -> None:
        self._gap_func = report

    async def start(self) -> None:
        """Connect, and subscribe to broadcasts.

        Raises:
            BackendUnavailable: Redis cannot be reached.
        """
        await self._check()
        self._publisher.start()
        self._subscriber.start()
        await self._subscriber.subscribe([self._broadcast_channel])

    async def _check(self) -> None:
        connection = await self._subscriber.link.open()
        await connection.disconnect(nowait=True)

    async def shutdown(self) -> None:
        await self._subscriber.stop()
        await self._publisher.stop()
        self._broadcast_func = self._send_func = None
        self._delivered.clear()

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def broadcast(self, message: bytes) -> None:
        await self._publisher.publish([(self._broadcast_channel, encode_publication([""], message))])

    async def send(self, rooms: list[str], message: bytes) -> None:
        await self.send_many([Publication(rooms, message, secrets.token_urlsafe(12))])

    async def send_many(self, publications: Sequence[Publication]) -> None:
        items: list[tuple[bytes, bytes]] = []
        for rooms, message, *_ in publications:
            payload = encode_publication(rooms, message)
            items += [(self._prefix + room.encode(), payload) for room in rooms]
        await self._publisher.publish(items)

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def subscribe(self, rooms: Collection[str]) -> None:
        await self._subscriber.subscribe([self._prefix + room.encode() for room in rooms])

    def unsubscribe(self, rooms: Collection[str]) -> None:
        self._subscriber.unsubscribe([self._prefix + room.encode() for room in rooms])

    async def _deliver(self, channel: bytes, payload: bytes) -> None:
        """One payload to the manager. Garbage concerns nobody else: the reader goes on."""
        is_broadcast = channel == self._broadcast_channel
        room = "" if is_broadcast else channel.removeprefix(self._prefix).decode()
        try:
            publication_id, rooms, data = decode_publication(room, payload)
        except ValueError as error:
            self._drop(error)
            return
        if is_broadcast:
            if self._broadcast_func is not None:
                await self._broadcast_func(data)
        elif self._send_func is not None and self._is_first(publication_id):
            await self._send_func(rooms, data)

    def _is_first(self, publication_id: str | None) -> bool:
        """Whether no copy of this publication, sent to several rooms, has come through another room already."""
        if publication_id is None:
            return True
        if publication_id in self._delivered:
            return False
        self._delivered[publication_id] = None
        if len(self._delivered) > _REMEMBERED:
            self._delivered.popitem(last=False)
        return True

    def _drop(self, error: ValueError) -> None:
        self.dropped += 1
        if self.dropped == 1 or self.dropped % 1000 == 0:
            _log.warning(
                "dropped a payload on a Redis channel of ours, %d so far: %s", self.dropped, type(error).__name__
            )

    def _report_gap(self, channels: Collection[bytes]) -> None:
        rooms = [
            channel.removeprefix(self._prefix).decode() for channel in channels if channel.startswith(self._prefix)
        ]
        _log.warning("the connection to Redis was lost: messages to %d rooms may have been missed", len(rooms))
        if self._gap_func is not None:
            self._gap_func(rooms, broadcasts=True)
