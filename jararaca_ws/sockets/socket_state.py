"""What becomes of one socket: its state, what waits to be written to it and what was read, and how it closes."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum
from typing import Any

from jararaca_ws.errors import ConnectionClosed
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.sockets.queues import InboundQueue, OutboundQueue
from jararaca_ws.sockets.waiting import Flag
from jararaca_ws.wire.frames import PLAIN, Frame, wire_form
from jararaca_ws.wire.packing import check_can_pack
from jararaca_ws.wire.protocol import MSGPACK_SUBPROTOCOL, SUBPROTOCOLS, CloseCode, Dropped, Shutdown, encode

__all__ = ["ConnectionState", "SocketState"]

_log = logging.getLogger("jararaca_ws")

_RETRY_AFTER_MS = (250, 5000)
"""When clients of an instance that goes away come back: each at a time of its own, so that they do not all at once."""


class ConnectionState(Enum):
    """CONNECTING (before accept), OPEN, CLOSING (a close frame is on its way), CLOSED. Never backwards."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class SocketState:
    """The half of a `WebSocketConnection` that is for the framework: whoever serves it, writes to it, delivers to it.

    Its attributes are described there.
    """

    # An instance has so many attributes that its dict would take 1.5 kB. Whoever needs one more still can.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_closing",
        "_evicted_told",
        "accepted",
        "alive",
        "close_code",
        "close_reason",
        "closed",
        "direct",
        "flusher",
        "form",
        "id",
        "inbound",
        "on_closing",
        "on_failed",
        "outbound",
        "overflowed",
        "settings",
        "state",
        "subprotocol",
        "wake",
        "write_now",
    )

    def __init__(self, settings: WebSocketSettings | None, flusher: TickFlusher | None) -> None:
        self.id = uuid.uuid4().hex
        self.settings = settings or WebSocketSettings()
        self.flusher = flusher or TickFlusher()
        #: See `flushing.Receiver`.
        self.direct: Callable[[bytes], None] | None = None
        self.form = PLAIN
        self.subprotocol: str | None = None
        self.state = ConnectionState.CONNECTING
        self.accepted = False
        self.alive = True
        self.closed = Flag()
        self.close_code: int | None = None
        self.close_reason = ""
        self.overflowed = False
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
        #: Called when writing has raised.
        self.on_failed: Callable[[Exception], None] = _nobody_writes_yet
        #: Writes a frame in the calling task; None where frames are written at the end of the tick, or nobody writes.
        self.write_now: Callable[[Frame], Awaitable[bool]] | None = None
        self._evicted_told = 0
        # Whether we began to close, as opposed to the client: then what it still sends is not handled any more.
        self._closing = False

    @property
    def understands_control(self) -> bool:
        """Whether one of our subprotocols was agreed to, and so control messages."""
        return self.subprotocol in SUBPROTOCOLS

    async def read(self) -> MutableMapping[str, Any] | None:
        """What the client has sent next, as ASGI has it; None when it has gone, or we have begun to close."""
        message = None if self._closing else await self.inbound.get()
        return None if message is None or message["type"] == "websocket.disconnect" else message

    # --- frames -------------------------------------------------------------------------------------------------------

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
        queued = self.queue(frame)
        if queued:
            self.flusher.count_queued(frame)
        return queued

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
        while not self.offer(frame):
            await self.outbound.wait_for_space()

    def offer(self, frame: Frame) -> bool:
        """`put`, where there is space now.

        Raises:
            ConnectionClosed: nothing was queued.
        """
        if not self.alive:
            raise self.end()
        if self.direct is not None:
            self.flusher.deliver(frame, (self,))
            return True
        self.flusher.settle()
        if not self.outbound.append(frame, self.settings.max_queue_bytes // 2):
            return False
        self.flusher.count_queued(frame)
        self.wake()
        return True

    async def reply(self, frame: Frame) -> None:
        """`put`, for whoever may as well wait until the client takes it: where nothing is queued, no task is woken.

        Raises:
            ConnectionClosed: before it was queued.
        """
        if not (self.offer(frame) if self.write_now is None else await self.write_now(frame)):
            await self.put(frame)

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

    def speak(self, subprotocol: str | None) -> None:
        """This is about to be agreed to. What answers the accept may be read before `open` is called.

        Raises:
            ConfigurationError: the application has chosen msgpack, and the extra is not installed.
        """
        if subprotocol == MSGPACK_SUBPROTOCOL:
            check_can_pack()
            self.form = wire_form(self.form.window_bits, True)

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
            self.tell_closed()
        finally:
            self.closed.set()

    def tell_closed(self) -> None:
        """Called, once and synchronously, in the moment in which the socket becomes CLOSED."""


def _nobody_serves_yet() -> None:
    """What is queued waits for the writer, which looks at the queue when it begins."""


def _nobody_writes_yet(error: Exception) -> None:
    """Nothing is written directly before there is a writer."""
