"""What rooms keep in Redis: a stream for each room, counted without holes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta

from jararaca_ws.backends.base import Entry, Publication, Replay, StreamPosition
from jararaca_ws.backends.redis_keys import Keys
from jararaca_ws.backends.redis_scripts import APPEND, HISTORY, PUBLISH_ONCE, Call, Command, Executor
from jararaca_ws.wire.publications import encode_publication, kept_header

__all__ = ["RedisHistory"]


class RedisHistory:
    """Makes the commands that publish what Redis has to remember, and reads what it has kept.

    A room has a stream of entries, whose ids are ``<offset>-0``, and a hash of its epoch, offset, and what became of
    older epochs. The hash outlives the entries, so that a position from before is told from one of another history.

    Args:
        reader: of its own, so that a long history is in no publication's way.
        keys: where to keep it all.
        meta_ttl: how long a room's position is known after its last entry.
        idempotency_window: how long the id of a publication is remembered with which its sender may come again.
        retry_window: and of one that only we ourselves try again.
        publish: the Redis command, ``PUBLISH`` or ``SPUBLISH``.
    """

    def __init__(
        self,
        reader: Executor,
        keys: Keys,
        *,
        meta_ttl: timedelta,
        idempotency_window: timedelta,
        retry_window: timedelta,
        publish: str = "PUBLISH",
    ) -> None:
        self._reader = reader
        self._keys = keys
        self._publish = publish
        self._meta_ttl_ms = _ms(meta_ttl)
        self._keyed_ms = _ms(idempotency_window)
        self._unkeyed_ms = _ms(retry_window)
        # Epochs are unique: this, and the server's time.
        self._nonce = secrets.token_hex(4)

    def commands(self, publication: Publication, channels: Sequence[bytes]) -> list[Command]:
        """One command for each room of a publication that has a retention, or is keyed; of each twice is no harm."""
        make = self._append if publication.retention is not None else self._publish_once
        return [make(publication, room, channel) for room, channel in zip(publication.rooms, channels, strict=True)]

    def _append(self, publication: Publication, room: str, channel: bytes) -> Command:
        rooms, payload, publication_id, retention, is_keyed = publication
        assert retention is not None
        keys = (self._keys.entries(room), self._keys.meta(room), self._keys.sent(room, publication_id))
        lifetimes = (retention.ttl_ms, self._meta_ttl_ms, self._keyed_ms if is_keyed else self._unkeyed_ms)
        content = (publication_id, kept_header(publication_id, rooms), payload)
        return Call(APPEND, keys, (self._publish, channel, self._nonce, retention.size, *lifetimes, *content))

    def _publish_once(self, publication: Publication, room: str, channel: bytes) -> Command:
        payload = encode_publication(publication.id, publication.rooms, publication.payload)
        sent = self._keys.sent(room, publication.id)
        return Call(PUBLISH_ONCE, (sent,), (self._publish, channel, self._keyed_ms, payload))

    async def read(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        """`HistoryBackend.history`."""
        place = ("", "") if since is None else since
        keys = (self._keys.entries(room), self._keys.meta(room))
        [(epoch, offset, recovered, found)] = await self._reader.execute([Call(HISTORY, keys, (limit, *place))])
        position = StreamPosition(epoch.decode(), offset)
        return Replay(position, [_entry(position.epoch, *entry) for entry in found], bool(recovered))

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        """`HistoryBackend.positions`."""
        replies = await self._reader.execute([("HMGET", self._keys.meta(room), "epoch", "offset") for room in rooms])
        return [StreamPosition(epoch.decode(), int(offset)) if epoch else None for epoch, offset in replies]


def _entry(epoch: str, entry_id: bytes, fields: list[bytes]) -> Entry:
    _, publication_id, _, payload = fields
    return Entry(StreamPosition(epoch, int(entry_id.partition(b"-")[0])), publication_id.decode(), payload)


def _ms(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))
