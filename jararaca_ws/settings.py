"""What one may set for WebSockets, in one table: ``docs/settings.md``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from jararaca_ws.configuring import Amount, Count, Duration, Settings

__all__ = ["WebSocketSettings"]


class WebSocketSettings(Settings):
    """What connections may take, and what an instance takes on; documented in ``docs/settings.md``."""

    handshake_rate: Count | None = 500
    """How many handshakes an instance takes on in a second; what comes beyond is answered 503, with a `Retry-After`
    that differs from client to client. None: no limit."""

    handshake_burst: Count = 1000
    """How many handshakes it takes on at once, after a pause."""

    max_connections: Count | None = None
    """How many connections there may be on all instances together; one more is answered 429. None: no limit."""

    max_connections_per_user: Count | None = None
    """How many connections of one user there may be on all instances together. One more is answered 429, or closed
    with 4504 where it says later whose it is. None: no limit."""

    max_connections_per_address: Count | None = None
    """How many connections from one address, or one /64 of IPv6, there may be on all instances together; one more is
    answered 429. None: no limit."""

    limits_ttl: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=30)
    """Within it the connections of an instance that was killed count no more; at least 1 s. Instances give a sign of
    life three times in it."""

    limits_fail_open: bool = True
    """While the backend does not answer: whether each instance counts its own connections, or takes on no more."""

    max_message_bytes: Count = 64 * 1024
    """A longer message from a client closes its connection with 1009."""

    max_pending_calls: Count = 128
    """How many calls may wait for one client."""

    max_queue_bytes: Count = 1024 * 1024
    """Of frames that wait to be written to one client. When a delivery does not fit, the client is a slow consumer: it
    is closed with 4008."""

    write_timeout: Duration = timedelta(seconds=10)
    """How long the socket may refuse to take what was queued at one moment, before the client is a slow consumer."""

    close_timeout: Duration = timedelta(seconds=1)
    """How long the close frame may take to be written."""

    max_inbound_messages: Count = 64
    """Read from the client, not yet taken by the handler."""

    max_inbound_bytes: Count = 1024 * 1024
    """The same, in bytes."""

    read_patience: Duration = timedelta(seconds=5)
    """How long a full inbound queue waits for a handler that has never read, before the oldest message is discarded.
    Once it has read, nothing is."""

    handler_timeout: Annotated[Duration, Field(gt=timedelta(0))] | None = timedelta(seconds=30)
    """How long the handling of one message may take, the interceptors around it included, before it is cancelled.
    None: as long as it likes."""

    handler_grace: Duration = timedelta(seconds=10)
    """How long a handler may go on after its client has gone, before it is cancelled."""

    max_recovered: Count = 300
    """How many missed messages of a room a client that comes back gets; who has missed more is told
    `recovered: false`."""

    max_recovered_bytes: Count = 4 * 1024 * 1024
    """The same, in bytes: a replay is held in memory while it goes at the pace of its client."""

    recover_timeout: Duration = timedelta(seconds=10)
    """How long a client that comes back may take to send its positions, before it counts as one without."""

    auth_timeout: Duration = timedelta(seconds=10)
    """How long a client may take to say who it is, in its first message, before it is closed with 4502; and how long
    `authenticate=` may take to look at a token."""

    expiry_warning: Duration = timedelta(seconds=25)
    """How long before its token expires a client is told."""

    max_rooms: Count = 128
    """How many rooms a connection may be in when its client asks for one more. The application's own joins are not
    limited."""

    max_invalid_messages: Count = 3
    """How many messages that cannot be decoded close a connection, with 4501."""

    max_denials: Count = 10
    """How many messages that ask for what the client may not close its connection, with 4507."""

    max_rate_limited: Count = 20
    """How many messages that are too much close a connection, with 4013."""

    refusal_window: Duration = timedelta(minutes=1)
    """In how long a time they have to come; what is longer ago counts no more."""

    drain_window: Duration = timedelta(seconds=5)
    """Over how long the sockets are closed when the process is told to end, each at a moment of its own."""

    send_buffer_bytes: Amount = 128 * 1024
    """The kernel's send buffer of each socket, under our server; 0 leaves it alone. Then it grows to megabytes, for
    each reader that has stalled."""
