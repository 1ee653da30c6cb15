"""One accepted socket: identity, state, outbound queue, and the two tasks that read from it and write to it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from jararaca_ws.errors import BadRoom, ConnectionClosed, IllegalTransition, InvalidMessage, NotBound, Unavailable
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.protocol import SUBPROTOCOL, CloseCode, ErrorMessage, Frame, decode, encode
from jararaca_ws.queues import InboundQueue, OutboundQueue

__all__ = ["ConnectionSettings", "ConnectionState", "Membership", "WebSocketConnection"]

_log = logging.getLogger("jararaca_ws")

_STRIKES = 3
"""How many messages that cannot be decoded a client may send before it is closed with 4501."""


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
        handler_grace: how long a handler may go on after its client has gone, before it is cancelled.
    """

    max_queue_bytes: int = 1024 * 1024
    write_timeout: timedelta = timedelta(seconds=10)
    close_timeout: timedelta = timedelta(seconds=1)
    max_inbound_messages: int = 64
    max_inbound_bytes: int = 1024 * 1024
    handler_grace: timedelta = timedelta(seconds=10)


class Membership(Protocol):
    """Who keeps the rooms: the connection manager."""

    async def join(self, rooms: Iterable[str], websocket: WebSocketConnection) -> None: ...
    async def leave(self, rooms: Iterable[str], websocket: WebSocketConnection) -> None: ...
    def rooms_of(self, connection: WebSocketConnection) -> Collection[str]: ...


class WebSocketConnection:
    """One socket of this instance; what a WebSocket handler gets by type annotation.

    The framework reads and writes the socket in two tasks of its own, so a handler may do neither and the socket
    stays healthy: pings are answered, a vanished peer is noticed, a slow reader delays nobody.

    Attributes:
        id: unique among all instances.
        user_id: whose connection this is, once `identify` has said so.
        closed: set when the socket is gone and the connection has left its rooms.
        close_code, close_reason: why; None and "" while it is open.
        state: see `ConnectionState`.
        websocket: the same socket as starlette sees it: headers, cookies, path parameters, client address.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ConnectionSettings | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.scope = scope
        self.user_id: str | None = None
        self.subprotocol: str | None = None
        self.state = ConnectionState.CONNECTING
        self.closed = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self.overflowed = False
        self.settings = settings or ConnectionSettings()
        self.websocket = WebSocket(scope, self.receive_asgi, self.send_asgi)
        self._receive = receive
        self._send = send
        self._accepted = False
        self._outbound = OutboundQueue(self.settings.max_queue_bytes)
        self._inbound = InboundQueue(self.settings.max_inbound_messages, self.settings.max_inbound_bytes)
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        self._strikes = 0
        # The `websocket.connect` message; None once the application inside has taken it.
        self._connect: Message | None = None
        # None while the writer is idle: the deadline of what it is writing.
        self._write_deadline: asyncio.Timeout | None = None
        # None before the handler runs: cancels it when it outlives its client.
        self._handler_deadline: asyncio.Timeout | None = None
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

    @property
    def alive(self) -> bool:
        """Whether it can still get messages: open, or on its way to be."""
        return self.state is ConnectionState.OPEN or self.state is ConnectionState.CONNECTING

    async def accept(self) -> None:
        """Accept the handshake; done already for handlers of an endpoint without ``accept=False``.

        What was sent to the connection before, through the rooms that it joined, follows at once.

        Raises:
            ConnectionClosed: the client has gone.
        """
        if not self._accepted:
            await self.websocket.accept()

    def identify(self, user_id: str) -> None:
        """Say whose connection this is. Who may say so is the caller's business."""
        self.user_id = user_id

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
        _check_close(code, reason)
        if self.state is ConnectionState.CONNECTING:
            await self._refuse({"type": "websocket.close", "code": code, "reason": reason})
        self.begin_close(code, reason)
        await self.closed.wait()

    async def __aiter__(self) -> AsyncIterator[WebSocketMessageBase]:
        """The typed messages of the client, until it goes.

        What cannot be decoded is logged and refused: a client that understands control messages gets
        ``jararaca.error``; at the third one the connection is closed with 4501. A binary frame closes it with 1003.
        """
        while True:
            message = await self._inbound.get()
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
        self._on_closed.append(callback)

    def enqueue(self, frame: Frame) -> bool:
        """Queue a frame without waiting; False when the connection is closing or its queue is full.

        A full queue means a slow consumer. What it would miss cannot be told to it in order any more, so it is
        closed with 4008, never left with a hole. The connection leaves its rooms later, in its own task: the
        caller may be iterating over a room.
        """
        if not self.alive:
            return False
        if self._outbound.append(frame):
            self._wake.set()
            return True
        self._slow("its outbound queue is full")
        return False

    async def put(self, frame: Frame) -> None:
        """Queue a frame, waiting for space.

        Raises:
            ConnectionClosed: before it was queued.
        """
        while self.alive:
            if self._outbound.append(frame):
                self._wake.set()
                return
            await self._outbound.wait_for_space()
        raise ConnectionClosed(self.id, self.close_code, self.close_reason)

    def begin_close(self, code: int, reason: str) -> None:
        """Close after what is queued has been written, without waiting for it. Safe to call again."""
        if self.alive:
            self.state = ConnectionState.CLOSING
            self.close_code, self.close_reason = int(code), reason
            self._outbound.wake()
            self._wake.set()

    # --- the ASGI side ------------------------------------------------------------------------------------------------

    async def run(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Serve the socket while the handler runs, and close it afterwards: 1000, or 1011 when the handler raised.

        Two errors have codes of their own: `BadRoom` 4501, the client asked for a room that is none; `Unavailable`
        1013, it may try again.

        The handler runs in the calling task. Whatever happens, on return the connection is CLOSED and both tasks have
        ended.
        """
        self._connect = await self._receive()
        async with asyncio.TaskGroup() as tasks:
            pump = tasks.create_task(self._pump(), name=f"websocket-pump-{self.id}")
            writer = tasks.create_task(self._write(), name=f"websocket-writer-{self.id}")
            try:
                code, reason = await self._handle(handler)
                self.begin_close(code, reason)
                if not self._accepted:
                    await self._refuse_unaccepted(code, reason)
                await self.closed.wait()
            except asyncio.CancelledError:
                self.begin_close(CloseCode.SERVICE_RESTART, "")
                raise
            finally:
                pump.cancel()
                writer.cancel()
                self._finish(self.close_code or CloseCode.NORMAL, self.close_reason)

    async def receive_asgi(self) -> Message:
        """The ``receive`` of the ASGI application inside: what the pump has read."""
        if self._connect is not None:
            connect, self._connect = self._connect, None
            return connect
        return await self._inbound.get()

    async def send_asgi(self, message: Message) -> None:
        """The ``send`` of the ASGI application inside: one writer for it and for deliveries."""
        kind = message["type"]
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.send":
            text = message.get("text")
            frame = Frame(message["bytes"], binary=True) if text is None else Frame(text.encode())
            try:
                await self.put(frame)
            except ConnectionClosed as error:
                raise OSError(str(error)) from error  # what the ASGI specification has for a send after the end
        elif kind == "websocket.close":
            await self.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")
        elif self.state is ConnectionState.CONNECTING:
            await self._refuse(message)
        else:
            raise IllegalTransition("a WebSocket", self.state, ConnectionState.CONNECTING)

    async def _accept(self, message: Message) -> None:
        if self._accepted:
            raise IllegalTransition("a WebSocket", self.state, ConnectionState.OPEN)
        message = self._with_subprotocol(message)
        if self.state is ConnectionState.CONNECTING:
            await self._send(message)
        if self.state is not ConnectionState.CONNECTING:  # the client may have gone while we waited
            raise ConnectionClosed(self.id, self.close_code, self.close_reason)
        self._accepted = True
        self.subprotocol = message.get("subprotocol")
        self.state = ConnectionState.OPEN
        self._opened.set()

    def _with_subprotocol(self, accept: Message) -> Message:
        if accept.get("subprotocol") is None and SUBPROTOCOL in self.scope.get("subprotocols", ()):
            return {**accept, "subprotocol": SUBPROTOCOL}
        return accept

    async def _refuse(self, message: Message) -> None:
        await self._send(message)
        if message["type"] != "websocket.http.response.start" and not message.get("more_body"):
            self._finish(message.get("code", CloseCode.NORMAL), message.get("reason", ""))

    async def _refuse_unaccepted(self, code: int, reason: str) -> None:
        if self.state is not ConnectionState.CLOSED:
            with suppress(OSError):  # the client has gone, so there is nobody to refuse
                await self._deny(code, reason)
        self._finish(code, reason)

    async def _deny(self, code: int, reason: str) -> None:
        if code >= 4000:
            # A browser learns nothing from a refused handshake, so it would try again for ever: accept, and say why.
            await self._send(self._with_subprotocol({"type": "websocket.accept"}))
            await self._refuse({"type": "websocket.close", "code": code, "reason": reason})
        elif code == CloseCode.INTERNAL_ERROR and "websocket.http.response" in self.scope.get("extensions", {}):
            await self._refuse({"type": "websocket.http.response.start", "status": 500, "headers": []})
            await self._refuse({"type": "websocket.http.response.body", "body": b"Internal Server Error"})
        else:
            await self._refuse({"type": "websocket.close", "code": code, "reason": ""})

    async def _handle(self, handler: Callable[[], Awaitable[None]]) -> tuple[int, str]:
        deadline: asyncio.Timeout | None = None
        try:
            async with asyncio.timeout(None) as deadline:
                self._handler_deadline = deadline
                await handler()
        except (ConnectionClosed, WebSocketDisconnect):
            return CloseCode.NORMAL, ""
        except BadRoom as error:
            # As good as always a path parameter that the client wrote: its mistake, not the handler's.
            _log.warning("connection %s is refused: %s", self.id, error)
            return CloseCode.BAD_REQUEST, f"not a room: {error.problem}"
        except Unavailable as error:
            _log.warning("connection %s cannot be served: %s", self.id, error)
            return CloseCode.TRY_AGAIN_LATER, "try again later"
        except TimeoutError as error:
            if deadline is None or not deadline.expired():
                return self._failed(error)
            _log.warning("the handler of connection %s outlived its client and was cancelled", self.id)
        except Exception as error:
            return self._failed(error)
        finally:
            self._handler_deadline = None
        return CloseCode.NORMAL, ""

    def _failed(self, error: Exception) -> tuple[int, str]:
        error_id = uuid.uuid4().hex
        _log.error("the handler of connection %s failed (error %s)", self.id, error_id, exc_info=error)
        return CloseCode.INTERNAL_ERROR, f"error {error_id}"

    # --- the two tasks ------------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                break
            discarded = self._inbound.discarded
            await self._inbound.put(message)
            if self._inbound.discarded > discarded == 0:
                _log.warning("the handler of connection %s does not read: inbound messages are discarded", self.id)
        self._finish(message.get("code", 1005), message.get("reason") or "")

    async def _write(self) -> None:
        await self._opened.wait()
        try:
            while self.state is ConnectionState.OPEN or self._outbound:
                await self._wake.wait()
                self._wake.clear()
                if self._outbound:
                    await self._write_queued()
            if self.state is ConnectionState.CLOSED:
                return
            async with asyncio.timeout(self.settings.close_timeout.total_seconds()):
                await self._send({"type": "websocket.close", "code": self.close_code, "reason": self.close_reason})
        except Exception as error:
            # Servers differ in what they raise when the peer has gone: OSError, RuntimeError, their own.
            _log.debug("connection %s cannot be written to: %r", self.id, error)
        self._finish(1006, "")

    async def _write_queued(self) -> None:
        try:
            async with asyncio.timeout(self.settings.write_timeout.total_seconds()) as self._write_deadline:
                # Not more than what is queued now: the deadline is for these bytes.
                for _ in range(len(self._outbound)):
                    if not self._outbound:  # cleared meanwhile
                        break
                    frame = self._outbound.popleft()
                    if frame.binary:
                        await self._send({"type": "websocket.send", "bytes": frame.data})
                    else:
                        await self._send({"type": "websocket.send", "text": frame.text})
        except TimeoutError:
            self._slow("it did not take what was sent within the write timeout")
        finally:
            self._write_deadline = None
        if self._outbound:
            self._wake.set()

    # --- transitions --------------------------------------------------------------------------------------------------

    def _slow(self, problem: str) -> None:
        _log.warning("connection %s is a slow consumer: %s; closing it with 4008", self.id, problem)
        self.overflowed = True
        self._outbound.clear()
        self.begin_close(CloseCode.SLOW_CONSUMER, "slow consumer")
        if self._write_deadline is not None and not self._write_deadline.expired():
            # The writer is stuck in a send that may never end.
            self._write_deadline.reschedule(
                asyncio.get_running_loop().time() + self.settings.close_timeout.total_seconds()
            )

    def _finish(self, code: int, reason: str) -> None:
        """The socket is gone: idempotent, synchronous, and the only way to CLOSED."""
        if self.state is ConnectionState.CLOSED:
            return
        self.state = ConnectionState.CLOSED
        if self.close_code is None:
            self.close_code, self.close_reason = int(code), reason
        self._outbound.clear()
        self._inbound.finish({"type": "websocket.disconnect", "code": self.close_code, "reason": self.close_reason})
        if self._handler_deadline is not None and not self._handler_deadline.expired():
            grace = self.settings.handler_grace.total_seconds()
            self._handler_deadline.reschedule(asyncio.get_running_loop().time() + grace)
        for callback in self._on_closed:
            callback(self)
        self.closed.set()

    def _bound(self) -> Membership:
        if self._membership is None:
            raise NotBound("WebSocket connection manager", "serve the connection with a WebSocketInterceptor")
        return self._membership


def _check_close(code: int, reason: str) -> None:
    sendable = code in (1000, 1001, 1002, 1003, *range(1007, 1015)) or 3000 <= code <= 4999
    if not sendable:
        raise ValueError(f"{code} is not a close code that may be sent: use 1000, or 4000 to 4999 for your own")
    if len(reason.encode()) > 123:
        raise ValueError("a close reason has at most 123 bytes of UTF-8")
