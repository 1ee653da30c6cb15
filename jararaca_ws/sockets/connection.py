"""One accepted socket: identity, state, rooms, and its two queues. `serving` connects them to the server."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol

from starlette.datastructures import State
from starlette.types import Scope
from starlette.websockets import WebSocket

from jararaca_ws.answering import for_log, refusal_of, ungrouped
from jararaca_ws.auth.user import User
from jararaca_ws.errors import InvalidMessage, JararacaError, NotBound
from jararaca_ws.figures import Tally
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.rooms import check_room, connection_id, presence_room
from jararaca_ws.rpc import CALL_TIMEOUT, PendingCalls, Reply, WebSocketRequest
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.sockets.refusals import Refusals
from jararaca_ws.sockets.socket_state import SocketState
from jararaca_ws.sockets.waiting import Flag
from jararaca_ws.typed_rooms import AnyRoom, Room, authorize
from jararaca_ws.wire.close_codes import check_close
from jararaca_ws.wire.protocol import (
    SUBPROTOCOLS,
    CloseCode,
    agreed_subprotocol,
    decode,
    decode_json,
    encode,
    encode_error,
    is_control,
)
from jararaca_ws.wire.retained import RECOVER_SUBPROTOCOL, RecoveryRequest

__all__ = ["Membership", "Tracker", "WebSocketConnection"]

_log = logging.getLogger("jararaca_ws")


class Tracker(Protocol):
    """Who keeps presence."""

    def set_metadata(self, metadata: dict[str, Any], connection: WebSocketConnection) -> None: ...
    async def watch(self, room: str, connection: WebSocketConnection) -> None: ...
    def unwatch(self, room: str, connection: WebSocketConnection) -> None: ...


class Membership(Protocol):
    """Who keeps the rooms: the connection manager."""

    async def join(self, rooms: Iterable[AnyRoom], websocket: WebSocketConnection) -> None: ...
    async def leave(self, rooms: Iterable[AnyRoom], websocket: WebSocketConnection) -> None: ...
    async def identify(self, user_id: str, connection: WebSocketConnection) -> None: ...

    @property
    def instance_id(self) -> str: ...
    @property
    def tally(self) -> Tally: ...
    @property
    def tracker(self) -> Tracker: ...
    def rooms_of(self, connection: WebSocketConnection) -> Collection[str]: ...


class WebSocketConnection(SocketState):
    """One socket of this instance; what a WebSocket handler gets by type annotation.

    The framework reads and writes the socket in two tasks of its own, so a handler may do neither and the socket
    stays healthy: pings are answered, a vanished peer is noticed, a slow reader delays nobody.

    Attributes:
        id: unique among all instances: `WebSocketConnectionManager.send_to_connection` finds it on any.
        user: who it is, as ``authenticate=`` of the endpoint has said; None where it has none.
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

    __slots__ = (
        "_membership",
        "_on_closed",
        "_refusals",
        "admitting",
        "around",
        "calls",
        "granted",
        "metadata",
        "permission_changes",
        "recovery",
        "scope",
        "takes_request",
        "takes_token",
        "user",
        "user_id",
        "websocket",
    )

    def __init__(
        self, scope: Scope, settings: WebSocketSettings | None = None, flusher: TickFlusher | None = None
    ) -> None:
        super().__init__(settings, flusher)
        self.scope = scope
        self.websocket: WebSocket
        self.user: User | None = None
        self.user_id: str | None = None
        self.metadata: dict[str, Any] = {}
        offered = scope.get("subprotocols", ())
        comes_back = RECOVER_SUBPROTOCOL in offered and agreed_subprotocol(offered) is not None
        self.recovery = RecoveryRequest() if comes_back else None
        #: What the client was asked; None before the first call.
        self.calls: PendingCalls | None = None
        #: Asked of each message that was read, synchronously: whether it is for the framework. None: nobody asks.
        self.takes_request: Callable[[MutableMapping[str, Any]], bool] | None = None
        # None before the first.
        self._refusals: Refusals | None = None
        #: Asked the same, before: whether it is a token, and then awaited.
        self.takes_token: Callable[[MutableMapping[str, Any]], Awaitable[None] | None] | None = None
        #: Set when it is decided whether the client may stay that was to say who it is; None: that is known.
        self.admitting: Flag | None = None
        #: By what the connection has joined for it, the name and class of a typed room that was asked, and has let it
        #: in. None: there was none yet.
        self.granted: dict[str, tuple[str, type[Room[Any]]]] | None = None
        #: How often it was said that what the connection may is another now.
        self.permission_changes = 0
        #: A unit of work for what is done for the connection outside of its handlers; None where its host has none.
        self.around: Callable[[WebSocket], AbstractAsyncContextManager[None]] | None = None
        # None until a manager has taken the connection in.
        self._membership: Membership | None = None
        self._on_closed: list[Callable[[WebSocketConnection], None]] = []

    # --- for handlers -------------------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> State:
        """What the application keeps of this connection, under names of its own: ``connection.data.cart = ...``.

        Nobody else sees it, and it goes with the connection.
        """
        return State()

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
            LimitReached: the user has as many connections as there may be (``max_connections_per_user``).
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

    async def watch_presence(self, room: AnyRoom) -> None:
        """Have the client told who is in a room, with ``jararaca.presence``: all of them now, and then what changes.

        The connection need not be in the room itself. A client without the subprotocol is told nothing. Watching
        again has it told all again.

        Raises:
            BadRoom: it is not a room.
            ConfigurationError: presence is not switched on.
            PermissionDenied, ConnectionClosed, BackendUnavailable: as `join`.
        """
        tracker = self._bound().tracker
        await authorize([room], self, presence_room)
        await tracker.watch(check_room(room), self)

    async def unwatch_presence(self, room: AnyRoom) -> None:
        """Have the client told no more; not having watched is no error."""
        self._bound().tracker.unwatch(check_room(room), self)

    async def join(self, *rooms: AnyRoom) -> None:
        """Join rooms. When it returns, everything that is sent to them from now on comes here.

        A typed room is asked first whether this connection may.

        Raises:
            BadRoom: a name is not a room; none was joined.
            PermissionDenied: a typed room refuses; none was joined.
            ConnectionClosed: the socket is gone; it is in no room.
            BackendUnavailable: the backend did not confirm a subscription; none of the rooms was joined.
        """
        await self._bound().join(rooms, self)

    async def leave(self, *rooms: AnyRoom) -> None:
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

    async def call(self, request: WebSocketRequest[Reply], timeout: timedelta = CALL_TIMEOUT) -> Reply:
        """Ask the client, and wait for its reply. Any client can answer: see ``docs/protocol.md``.

        The answer is read whether or not the handler reads, so a handler may call. Only where the client sends more
        than the inbound queue takes before it answers, and the handler waits here in place of reading that, nothing
        is left but the timeout. Cancellation, and every error, leave nothing behind; an answer that comes then is
        swallowed.

        Args:
            request: its class says what the reply is: ``WebSocketRequest[Reply]``.
            timeout: for the question to be queued and the answer to come.

        Raises:
            CallTimeout: there was no answer in time.
            CallFailed: the client answered with an error (its ``reason``) or not with a reply of this type
                (``bad_reply``), or ``max_pending_calls`` wait for it already (``too_many_calls``).
            ConnectionClosed: the socket is closed, or was closed while waiting.
            ConfigurationError: the class does not say what the reply is.
            MessageIdUnset, MessageNotEncodable: as `WebSocketMessage.send`.
        """
        return await self.asking().call(request, self.put, timeout)

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
        ``jararaca.error``; at the third one the connection is closed with 4501. A frame of the wrong kind, binary
        where the client does not speak msgpack, closes it with 1003.
        """
        async for text in self.iter_text():
            try:
                decoded = decode(text)
            except InvalidMessage as error:
                self.refuse(error)
                continue
            yield decoded

    async def iter_text(self) -> AsyncIterator[str]:
        """The text frames of the client as they are, until it goes. A binary frame closes it with 1003.

        Of a client that speaks msgpack the JSON of its binary frames; "" for one that is no msgpack.
        """
        while (message := await self.read()) is not None:
            text: str | None = message.get("text")
            if text is None:
                await self.close(CloseCode.UNSUPPORTED_DATA, "text frames only")
                return
            yield text

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """The binary frames of the client as they are, until it goes. A text frame closes it with 1003."""
        while (message := await self.read()) is not None:
            data: bytes | None = message.get("bytes")
            if data is None:
                await self.close(CloseCode.UNSUPPORTED_DATA, "binary frames only")
                return
            yield data

    async def iter_json(self) -> AsyncIterator[Any]:
        """What the frames of `iter_text` hold, parsed, until the client goes: for clients that send no envelopes.

        What is no JSON (RFC 8259: NaN and infinity are none) is refused, as what cannot be decoded is above.
        """
        async for text in self.iter_text():
            try:
                value = decode_json(text)
            except InvalidMessage as error:
                self.refuse(error)
                continue
            yield value

    def refuse(self, error: BaseException, ref: str | None = None, *, is_strike: bool = True) -> None:
        """Tell the client that something it sent was not handled: the code, and an id which the log has as well.

        A client is told that understands it, or has given a ``ref`` and so waits for it. One that goes on and on is
        closed with the error's close code: see ``max_denials`` and its like in the settings. Who cannot authenticate
        is, at once.

        Args:
            error: what a `JararacaError` is for clients stands on its class; anything else is a failure of ours.
            ref: of what was sent.
            is_strike: whether it counts.
        """
        error_id = uuid.uuid4().hex
        error = ungrouped(error)
        told = refusal_of(error)
        self.tally.errors[JararacaError.code if told is None else told.code] += 1
        if told is None:
            _log.error("connection %s: a message was not handled (error %s)", self.id, error_id, exc_info=error)
        else:
            _log.warning("connection %s: a message was refused: %s (error %s)", self.id, for_log(error), error_id)
        if ref is not None or self.understands_control:
            # Not `put`: a client that does not read what it is told is a slow consumer.
            self.enqueue(encode_error(told, error_id, ref))
        if told is None or not is_strike:
            return
        if self._refusals is None:
            self._refusals = Refusals(self.settings)
        if self._refusals.is_one_too_many(told):
            self.begin_close(told.close_code, told.code)

    @property
    def tally(self) -> Tally:
        """Where it counts; for nobody before a manager has it."""
        return Tally() if self._membership is None else self._membership.tally

    # --- for the manager ----------------------------------------------------------------------------------------------

    @property
    def may_be_told(self) -> bool:
        """Whether the client understands control messages, or will once its handshake is accepted.

        What is told before that waits with the messages of the rooms that were joined before it.
        """
        if self.accepted:
            return self.understands_control
        return agreed_subprotocol(self.scope.get("subprotocols", ())) is not None

    def open(self, subprotocol: str | None) -> None:
        if subprotocol not in SUBPROTOCOLS and self.may_be_told:
            # The application has chosen another one: what was told before is not for this client.
            self.flusher.settle()
            self.outbound.discard(is_control)
        super().open(subprotocol)
        if self.recovery is not None and not self.understands_control:
            self.recovery.come({})  # no positions will come

    def bind(self, membership: Membership) -> None:
        """Say who keeps the rooms of this connection; its id says from here on on which instance it is."""
        if self._membership is None:
            self.id = connection_id(membership.instance_id, self.id)
        self._membership = membership

    def asking(self) -> PendingCalls:
        """What the client was asked."""
        if self.calls is None:
            self.calls = PendingCalls(self.settings.max_pending_calls)
        return self.calls

    def on_closed(self, callback: Callable[[WebSocketConnection], None]) -> None:
        """Call back, once and synchronously, in the moment in which the connection becomes CLOSED."""
        if callback not in self._on_closed:
            self._on_closed.append(callback)

    def tell_closed(self) -> None:
        if self.calls is not None:
            self.calls.close(self.end())
        for callback in self._on_closed:
            callback(self)

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

    def _bound(self) -> Membership:
        if self._membership is None:
            raise NotBound("WebSocket connection manager", "serve the connection with a WebSocketInterceptor")
        return self._membership
