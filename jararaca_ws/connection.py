"""One accepted socket: identity, state, rooms, and its two queues. `serving` connects them to the server."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Protocol

from starlette.types import Scope
from starlette.websockets import WebSocket

from jararaca_ws.errors import ConfigurationError, ConnectionClosed, InvalidMessage, NotBound
from jararaca_ws.flushing import TickFlusher
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.protocol import SUBPROTOCOL, CloseCode, Dropped, ErrorMessage, Frame, Shutdown, decode, encode
from jararaca_ws.queues import InboundQueue, OutboundQueue
from jararaca_ws.retained import RECOVER_SUBPROTOCOL, RecoveryRequest
from jararaca_ws.waiting import Flag

__all__ = ["ConnectionSettings", "ConnectionState", "Membership", "Tracker", "WebSocketConnection", "check_close"]

_log = logging.getLogger("jararaca_ws")

_STRIKES = 3
"""How many messages that cannot be decoded a client may send before it is closed with 4501."""


_RETRY_AFTER_MS = (250, 5000)
"""When clients of an instance that goes away come back: each at a time of its own, so that they do not all at once."""


class ConnectionState(Enum):
    """CONNECTING (before accept), OPEN, CLOSING (a close frame is on its way), CLOSED. Never backwards."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """What one connection may take.

    Attributes:
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
        recover_timeout: how long such a client may take to send its positions, before it counts as one without.
    """

    max_queue_bytes: int = 1024 * 1024
    write_timeout: timedelta = timedelta(seconds=10)
    close_timeout: timedelta = timedelta(seconds=1)
    max_inbound_messages: int = 64
    max_inbound_bytes: int = 1024 * 1024
    read_patience: timedelta = timedelta(seconds=5)
    handler_grace: timedelta = timedelta(seconds=10)
    max_recovered: int = 300
    recover_timeout: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        for name in ("max_queue_bytes", "max_inbound_messages", "max_inbound_bytes", "max_recovered"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a whole number, at least 1")
        for name in ("write_timeout", "close_timeout", "read_patience", "handler_grace", "recover_timeout"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < timedelta(0):
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a timedelta that is not negative")


class Tracker(Protocol):
    """Who keeps presence."""

    def set_metadata(self, metadata: dict[str, Any], connection: WebSocketConnection) -> None: ...
    async def watch(self, room: str, connection: WebSocketConnection) -> None: ...
    def unwatch(self, room: str, connection: WebSocketConnection) -> None: ...


class Membership(Protocol):
    """Who keeps the rooms: the connection manager."""

    async def join(self, rooms: Iterable[str], websocket: WebSocketConnection) -> None: ...
    async def leave(self, rooms: Iterable[str], websocket: WebSocketConnection) -> None: ...
    async def identify(self, user_id: str, connection: WebSocketConnection) -> None: ...

    @property
    def tracker(self) -> Tracker: ...
    def rooms_of(self, connection: WebSocketConnection) -> Collection[str]: ...


class WebSocketConnection:
    """One socket of this instance; what a WebSocket handler gets by type annotation.

    The framework reads and writes the socket in two tasks of its own, so a handler may do neither and the socket
    stays healthy: pings are answered, a vanished peer is noticed, a slow reader delays nobody.

    Attributes:
        id: unique among all instances.
        user_id: whose connection this is, once `identify` has returned.
        metadata: what others see of this connection beside its user; changed by `set_metadata` only.
        closed: set when the socket is gone and the connection has left its rooms.
        close_code, close_reason: why; None and "" while it is open.
        state: see `ConnectionState`.
        accepted: whether the handshake was.
        alive: whether it can still get messages: open, or on its way to be.
        websocket: the same socket as starlette sees it: headers, cookies, path parameters, client address.
        recovery: None, or the positions that a client which comes back sends first.
    """

    def __init__(
        self, scope: Scope, settings: ConnectionSettings | None = None, flusher: TickFlusher | None = None
    ) -> None:
        self.id = uuid.uuid4().hex
        self.scope = scope
        self.settings = settings or ConnectionSettings()
        self.flusher = flusher or TickFlusher()
        #: See `flushing.Receiver`.
        self.direct: Callable[[bytes], None] | None = None
        self.window_bits: int | None = None
        #: Called when writing has raised.
        self.on_failed: Callable[[Exception], None] = _nobody_writes_yet
        self.user_id: str | None = None
        self.metadata: dict[str, Any] = {}
        self.subprotocol: str | None = None
        self.state = ConnectionState.CONNECTING
        self.accepted = False
        self.alive = True
        self.closed = Flag()
        self.close_code: int | None = None
        self.close_reason = ""
        self.overflowed = False
        offered = scope.get("subprotocols", ())
        self.recovery = RecoveryRequest() if RECOVER_SUBPROTOCOL in offered and SUBPROTOCOL in offered else None
        self.websocket: WebSocket
        self.outbound = OutboundQueue(self.settings.max_queue_bytes)
        self.inbound = InboundQueue(
            self.settings.max_inbound_messages,
            self.settings.max_inbound_bytes,
            self.settings.read_patience.total_seconds(),
        )
        #: Called, synchronously, when something was queued and when the state has changed.
        self.wake: Callable[[], None] = _nobody_serves_yet
        #: Called, synchronously, when we begin to close.
        self.on_closing: Callable[[], None] = _nobody_serves_yet
        self._strikes = 0
        self._evicted_told = 0
        # Whether we began to close, as opposed to the client: then what it still sends is not handled any more.
        self._closing = False
        # None until a manager has taken the connection in.
        self._membership: Membership | None = None
        self._on_closed: list[Callable[[WebSocketConnection], None]] = []

    # --- for handlers -------------------------------------------------------------------------------------------------

    @property
    def understands_control(self) -> bool:
        """Whether the client agreed to the subprotocol, and so to control messages."""
        return self.subprotocol == SUBPROTOCOL

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that the connection is in."""
        return () if self._membership is None else tuple(self._membership.rooms_of(self))

    async def accept(self) -> None:
        """Accept the handshake; done already for handlers of an endpoint without ``accept=False``.

        What was sent to the connection before, through the rooms that it joined, follows at once.

        Raises:
            ConnectionClosed: the client has gone.
        """
        if not self.accepted:
            await self.websocket.accept()

    async def identify(self, user_id: str) -> None:
        """Say whose connection this is. Who may say so is the caller's business.

        When it returns, what is sent to the user from now on comes here. Another user's, it is no longer.

        Raises:
            BadUserId: not 1 to 255 bytes of UTF-8 without control or format characters.
            ConnectionClosed: the socket is gone.
            BackendUnavailable: the backend did not confirm the subscription; it is whose it was before.
        """
        await self._bound().identify(user_id, self)

    async def set_metadata(self, metadata: dict[str, Any]) -> None:
        """Say what others see of this connection: an object of JSON, in place of the one before.

        A copy is kept. They see it soon after; nothing waits for that.

        Raises:
            BadMetadata: it is no object of JSON, or larger than ``max_metadata_bytes``.
            ConfigurationError: presence is not switched on.
        """
        self._bound().tracker.set_metadata(metadata, self)

    async def watch_presence(self, room: str) -> None:
        """Have the client told who is in a room, with ``jararaca.presence``: all of them now, and then what changes.

        The connection need not be in the room itself. A client without the subprotocol is told nothing. Watching
        again has it told all again.

        Raises:
            BadRoom: it is not a room.
            ConfigurationError: presence is not switched on.
            ConnectionClosed, BackendUnavailable: as `join`.
        """
        await self._bound().tracker.watch(room, self)

    async def unwatch_presence(self, room: str) -> None:
        """Have the client told no more; not having watched is no error."""
        self._bound().tracker.unwatch(room, self)

    async def join(self, *rooms: str) -> None:
        """Join rooms. When it returns, everything that is sent to them from now on comes here.

        Raises:
            BadRoom: a name is not a room; none was joined.
            ConnectionClosed: the socket is gone; it is in no room.
            BackendUnavailable: the backend did not confirm a subscription; none of the rooms was joined.
        """
        await self._bound().join(rooms, self)

    async def leave(self, *rooms: str) -> None:
        """Leave rooms; not having been in one is no error."""
        await self._bound().leave(rooms, self)

    async def send(self, message: WebSocketMessageBase) -> None:
        """Send a message to this connection alone.

        Waits while the outbound queue is full, so a handler that streams goes at the pace of its client. Returns
        when the frame is queued, not when it has arrived; cancellation before that queues nothing.

        Raises:
            ConnectionClosed: the socket is closed, or was closed while waiting.
            MessageIdUnset, MessageNotEncodable: as `WebSocketMessage.send`.
        """
        await self.put(encode(message))

    async def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close after what is queued has been written; returns when the socket is closed. Safe to call again.

        Raises:
            ValueError: a code that may not be sent, or a reason of more than 123 bytes of UTF-8 (RFC 6455, 5.5).
        """
        check_close(code, reason)
        self.begin_close(code, reason)
        await self.closed.wait()

    async def __aiter__(self) -> AsyncIterator[WebSocketMessageBase]:
        """The typed messages of the client, until it goes.

        What cannot be decoded is logged and refused: a client that understands control messages gets
        ``jararaca.error``; at the third one the connection is closed with 4501. A binary frame closes it with 1003.
        """
        while not self._closing:
            message = await self.inbound.get()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await self.close(CloseCode.UNSUPPORTED_DATA, "text frames only")
                return
            try:
                decoded = decode(text)
            except InvalidMessage as error:
                await self._strike(error)
                continue
            yield decoded

    async def _strike(self, error: InvalidMessage) -> None:
        self._strikes += 1
        error_id = uuid.uuid4().hex
        _log.warning("connection %s sent a message that was refused: %s (error %s)", self.id, error, error_id)
        if self.understands_control:
            await self.put(encode(ErrorMessage(code=error.code, id=error_id)))
        if self._strikes >= _STRIKES:
            await self.close(CloseCode.BAD_REQUEST, f"{error.code}: {_STRIKES} messages were refused")

    # --- for the manager ----------------------------------------------------------------------------------------------

    def bind(self, membership: Membership) -> None:
        """Say who keeps the rooms of this connection."""
        self._membership = membership

    def on_closed(self, callback: Callable[[WebSocketConnection], None]) -> None:
        """Call back, once and synchronously, in the moment in which the connection becomes CLOSED."""
        if callback not in self._on_closed:
            self._on_closed.append(callback)

    def takes(self, message: MutableMapping[str, Any]) -> bool:
        """Whether what was read is for us: the first frame of a client that comes back, with its positions.

        Malformed ones close the connection with 4501.
        """
        request = self.recovery
        if request is None or request.has_come:
            return False
        try:
            return request.take(message)
        except InvalidMessage as error:
            _log.warning("connection %s sent positions that were refused: %s", self.id, error)
            self.begin_close(CloseCode.BAD_REQUEST, f"{error.code}: the positions were refused")
            return True

    def enqueue(self, frame: Frame) -> bool:
        """Queue a frame without waiting; False when the connection is closing or its queue is full.

        A full queue means a slow consumer. What it would miss cannot be told to it in order any more, so it is
        closed with 4008, never left with a hole. The connection leaves its rooms later, in its own task: the
        caller may be iterating over a room.
        """
        if not self.alive:
            return False
        if self.direct is not None:
            self.flusher.deliver(frame, (self,))
            return True
        self.flusher.settle()
        return self.queue(frame)

    def queue(self, frame: Frame) -> bool:
        """`enqueue` without regard to what the flusher still holds: for the flusher itself."""
        if not self.alive:
            return False
        if self.outbound.append(frame):
            self.direct = None
            self.wake()
            return True
        self.slow("its outbound queue is full")
        return False

    def failed(self, error: Exception) -> None:
        """Writing has raised."""
        self.on_failed(error)

    async def put(self, frame: Frame) -> None:
        """Queue a frame, waiting for space.

        It fills half of the queue at most: what comes from rooms meanwhile needs the other half.

        Raises:
            ConnectionClosed: before it was queued.
        """
        while self.alive:
            if self.direct is not None:
                self.flusher.deliver(frame, (self,))
                return
            self.flusher.settle()
            if self.outbound.append(frame, self.settings.max_queue_bytes // 2):
                self.wake()
                return
            await self.outbound.wait_for_space()
        raise self.end()

    def tell_evicted(self) -> None:
        """Queue word of the frames that were dropped since the last time, for a client that understands it."""
        count = self.outbound.evicted - self._evicted_told
        if count and self.understands_control and self.outbound.append(encode(Dropped(count=count))):
            self._evicted_told = self.outbound.evicted

    def end(self) -> ConnectionClosed:
        """The error that says that, and how, this connection is closed."""
        return ConnectionClosed(self.id, self.close_code, self.close_reason)

    def slow(self, problem: str) -> None:
        """Close with 4008, without what is queued: the client reads too slowly to be told everything."""
        self.flusher.settle()
        self.outbound.clear()
        if self.alive:
            _log.warning("connection %s is a slow consumer: %s; closing it with 4008", self.id, problem)
            self.overflowed = True
            self.begin_close(CloseCode.SLOW_CONSUMER, "slow consumer")

    # --- transitions --------------------------------------------------------------------------------------------------

    def open(self, subprotocol: str | None) -> None:
        """The handshake was accepted. A connection that is closing already is closed now."""
        self.accepted = True
        self.subprotocol = subprotocol
        if self.state is ConnectionState.CONNECTING:
            self.state = ConnectionState.OPEN
        self.wake()

    def begin_close(self, code: int, reason: str) -> None:
        """Close after what is queued has been written, without waiting for it. Safe to call again."""
        if self.alive:
            self.flusher.settle()
        if self.alive:  # and was not too slow for what had been delivered
            self._closing = True
            self.alive = False
            self.direct = None
            self.state = ConnectionState.CLOSING
            self.close_code, self.close_reason = int(code), reason
            self.outbound.wake()
            self.wake()
            self.on_closing()

    def begin_shutdown(self) -> None:
        """Close because the instance goes away: 1012, or 4001 with when to come back, for who understands that."""
        if self.understands_control:
            self.enqueue(encode(Shutdown(retry_after_ms=random.randrange(*_RETRY_AFTER_MS))))
            self.begin_close(CloseCode.SHUTDOWN, "shutdown")
        else:
            self.begin_close(CloseCode.SERVICE_RESTART, "service restart")

    def finish(self, code: int, reason: str) -> None:
        """The socket is gone: idempotent, synchronous, and the only way to CLOSED."""
        if self.state is ConnectionState.CLOSED:
            return
        self.alive = False
        self.direct = None
        self.state = ConnectionState.CLOSED
        if self.close_code is None:
            self.close_code, self.close_reason = int(code), reason
        self.outbound.clear()
        self.inbound.finish({"type": "websocket.disconnect", "code": self.close_code, "reason": self.close_reason})
        try:
            for callback in self._on_closed:
                callback(self)
        finally:
            self.closed.set()

    def _bound(self) -> Membership:
        if self._membership is None:
            raise NotBound("WebSocket connection manager", "serve the connection with a WebSocketInterceptor")
        return self._membership


def _nobody_serves_yet() -> None:
    """What is queued waits for the writer, which looks at the queue when it begins."""


def _nobody_writes_yet(error: Exception) -> None:
    """Nothing is written directly before there is a writer."""


def check_close(code: int, reason: str) -> None:
    """Whether RFC 6455 allows a close frame with these.

    Raises:
        ValueError: it does not.
    """
    sendable = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999
    if not sendable:
        raise ValueError(f"{code} is not a close code that may be sent: use 1000, or 4000 to 4999 for your own")
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes of UTF-8")
