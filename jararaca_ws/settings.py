"""What one connection may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from jararaca_ws.errors import ConfigurationError

__all__ = ["ConnectionSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """What one connection may take.

    Attributes:
        handshake_rate: how many handshakes an instance takes on in a second; what comes beyond is answered 503, with a
            ``Retry-After`` that differs from client to client. None: no limit.
        handshake_burst: how many it takes on at once, after a pause.
        max_message_bytes: a longer message from a client closes its connection with 1009.
        max_pending_calls: how many calls may wait for one client.
        max_queue_bytes: of frames that wait to be written. When a delivery does not fit, the client is a slow
            consumer: it is closed with 4008.
        write_timeout: how long the socket may refuse to take what was queued at one moment, before the client is a
            slow consumer.
        close_timeout: how long the close frame may take to be written.
        max_inbound_messages, max_inbound_bytes: read from the client, not yet taken by the handler.
        read_patience: how long a full inbound queue waits for a handler that has never read, before the oldest message
            is discarded. Once it has read, nothing is.
        handler_grace: how long a handler may go on after its client has gone, before it is cancelled.
        max_recovered: how many missed messages of a room a client that comes back gets; who has missed more is told
            ``recovered: false``.
        max_recovered_bytes: the same, in bytes: a replay is held in memory while it goes at the pace of its client.
        max_rooms: how many rooms a connection may be in when its client asks for one more. The application's own joins
            are not limited.
        max_invalid_messages, max_denials, max_rate_limited: how many messages of a client may be refused, because they
            cannot be decoded, because it may not, because they are too many, before it is closed: with 4501, 4507 and
            4013.
        refusal_window: in how long a time; what is longer ago counts no more.
        recover_timeout: how long such a client may take to send its positions, before it counts as one without.
    """

    handshake_rate: int | None = 500
    handshake_burst: int = 1000
    max_message_bytes: int = 64 * 1024
    max_pending_calls: int = 128
    max_queue_bytes: int = 1024 * 1024
    write_timeout: timedelta = timedelta(seconds=10)
    close_timeout: timedelta = timedelta(seconds=1)
    max_inbound_messages: int = 64
    max_inbound_bytes: int = 1024 * 1024
    read_patience: timedelta = timedelta(seconds=5)
    handler_grace: timedelta = timedelta(seconds=10)
    max_recovered: int = 300
    max_rooms: int = 128
    max_recovered_bytes: int = 4 * 1024 * 1024
    recover_timeout: timedelta = timedelta(seconds=10)
    max_invalid_messages: int = 3
    max_denials: int = 10
    max_rate_limited: int = 20
    refusal_window: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        counts = (
            *(("handshake_rate",) if self.handshake_rate is not None else ()),
            "handshake_burst",
            "max_message_bytes",
            "max_pending_calls",
            "max_queue_bytes",
            "max_inbound_messages",
            "max_inbound_bytes",
            "max_recovered",
            "max_recovered_bytes",
            "max_rooms",
            "max_invalid_messages",
            "max_denials",
            "max_rate_limited",
        )
        for name in counts:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a whole number, at least 1")
        for name in (
            "write_timeout",
            "close_timeout",
            "read_patience",
            "handler_grace",
            "recover_timeout",
            "refusal_window",
        ):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < timedelta(0):
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a timedelta that is not negative")
