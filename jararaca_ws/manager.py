"""The connection manager: who is in which room, encode once, publish, and deliver to local outbound queues."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType

from starlette.websockets import WebSocket

from jararaca_ws.backends.base import (
    BatchingBackend,
    GapReportingBackend,
    Publication,
    StartableBackend,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.connection import ConnectionSettings, WebSocketConnection
from jararaca_ws.errors import ConfigurationError, ConnectionClosed, MessageNotEncodable
from jararaca_ws.flushing import TickFlusher
from jararaca_ws.messages import WebSocketMessageBase, check_message_ids
from jararaca_ws.protocol import Frame, Gap, encode
from jararaca_ws.rooms import RoomRegistry, check_rooms

__all__ = ["SCOPE_KEY", "Counters", "WebSocketConnectionManager"]

_log = logging.getLogger("jararaca_ws")

SCOPE_KEY = "jararaca_ws.connection"
"""Where the ASGI scope of a served WebSocket holds its `WebSocketConnection`."""


@dataclass(slots=True)
class Counters:
    """What this instance has done since it started.

    Attributes:
        sent: messages given to the backend and accepted.
        delivered: frames written to sockets, or put into outbound queues.
        overflows: connections closed with 4008.
        gaps: times at which the backend may have missed something.
        dropped: frames of the backend that were not text, and so were delivered to nobody.
        conflated, evicted: frames that a newer one replaced before they were written (`latest`), or that made room for
            one (``drop_oldest``).
    """

    sent: int = 0
    delivered: int = 0
    overflows: int = 0
    gaps: int = 0
    dropped: int = 0
    conflated: int = 0
    evicted: int = 0


class WebSocketConnectionManager:
    """The connections and rooms of one instance, and the way to the rooms of all.

    A `WebSocketInterceptor` makes one and binds it for every unit of work. In a script or a test::

        async with WebSocketConnectionManager(backend) as manager:
            await manager.send(["chat-7"], ChatMessage(text="hello"))

    Attributes:
        instance_id: unique among all processes.
    """

    def __init__(self, backend: WebSocketConnectionBackend, *, settings: ConnectionSettings | None = None) -> None:
        if not isinstance(backend, WebSocketConnectionBackend):
            raise ConfigurationError(
                f"a {type(backend).__name__} is not a WebSocket backend",
                "it needs the methods of WebSocketConnectionBackend",
            )
        self.backend = backend
        self.settings = settings or ConnectionSettings()
        self.instance_id = uuid.uuid4().hex
        self._counters = Counters()
        self._ids = count()
        self.flusher = TickFlusher()
        self._rooms: RoomRegistry[WebSocketConnection] = RoomRegistry()
        # Joins that wait for their subscription, by connection and room: the last one that fails rolls back.
        self._joining: dict[tuple[WebSocketConnection, str], int] = {}
        # In the order of their arrival; a dict because a set has none.
        self._connections: dict[WebSocketConnection, None] = {}
        self._stopping = asyncio.Event()
        self._started = False
        # None where the backend carries every room to every instance.
        self._subscriber = backend if isinstance(backend, SubscribingBackend) else None
        self._batcher = backend if isinstance(backend, BatchingBackend) else None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Configure and start the backend.

        Raises:
            DuplicateMessageId: two message classes have one ``MESSAGE_ID``.
            BackendUnavailable: the backend cannot be reached.
        """
        check_message_ids()
        self._started = True
        self._stopping = asyncio.Event()
        self.backend.configure(self._deliver_to_all, self._deliver_to_rooms, self._stopping)
        if isinstance(self.backend, GapReportingBackend):
            self.backend.on_gap(self._report_gap)
        if isinstance(self.backend, StartableBackend):
            try:
                await self.backend.start()
            except BaseException:
                await self._shut_backend_down()
                raise

    async def stop(self) -> None:
        """Close every connection, with 1012 or 4001, and shut the backend down. Takes no socket in; leaves no task."""
        self._stopping.set()
        connections = tuple(self._connections)
        for connection in connections:
            connection.begin_shutdown()
        for connection in connections:  # they close side by side, each within its own timeouts
            await connection.closed.wait()
        await self._shut_backend_down()

    async def _shut_backend_down(self) -> None:
        self._stopping.set()
        await self.backend.shutdown()

    async def __aenter__(self) -> WebSocketConnectionManager:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def counters(self) -> Counters:
        """What this instance has done since it started."""
        counters, flusher = self._counters, self.flusher
        return replace(counters, delivered=flusher.delivered, conflated=counters.conflated + flusher.conflated)

    # --- connections and rooms ----------------------------------------------------------------------------------------

    @property
    def connections(self) -> Collection[WebSocketConnection]:
        """The connections of this instance: a live view, not to be kept across an await."""
        return self._connections.keys()

    def rooms_of(self, connection: WebSocketConnection) -> Collection[str]:
        """The rooms that a connection of this instance is in: a live view."""
        return self._rooms.rooms_of(connection)

    def members(self, room: str) -> Collection[WebSocketConnection]:
        """The connections of this instance in a room: a live view."""
        return self._rooms.members(room)

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that have a member on this instance."""
        return tuple(self._rooms)

    async def add_websocket(self, websocket: WebSocket | WebSocketConnection) -> WebSocketConnection:
        """Take a socket in: broadcasts reach it, once it is accepted. Safe to call again.

        Raises:
            ConnectionClosed: it is closed.
            ConfigurationError: it is not served by a ``@WebSocketEndpoint``.
        """
        connection = _connection_of(websocket)
        self._take_in(connection)
        return connection

    async def remove_websocket(self, websocket: WebSocket | WebSocketConnection) -> None:
        """Let a socket go: it leaves its rooms and gets nothing more. Does not close it. Safe to call again."""
        self._let_go(_connection_of(websocket))

    async def join(self, rooms: Iterable[str], websocket: WebSocket | WebSocketConnection) -> None:
        """Join rooms; takes the socket in where that has not been done. Joining again is no error.

        When it returns, everything that is sent to the rooms from now on comes to the socket. A socket that has gone
        is in no room, whenever it went.

        Raises:
            BadRoom: a name is not a room; none was joined.
            ConnectionClosed: the socket is closed.
            BackendUnavailable: a subscription was not confirmed; what this call had joined was left again.
        """
        connection = _connection_of(websocket)
        names = check_rooms(rooms)
        self._take_in(connection)
        if self._subscriber is None:
            for room in names:
                self._rooms.join(room, connection)
        else:
            await self._join_subscribed(names, connection, self._subscriber)
        if not connection.alive or self._stopping.is_set():
            raise ConnectionClosed(connection.id, connection.close_code, connection.close_reason)

    async def _join_subscribed(
        self, rooms: list[str], connection: WebSocketConnection, subscriber: SubscribingBackend
    ) -> None:
        joined = self._rooms.rooms_of(connection)
        # Those that no join has been confirmed for yet; another one of this connection may be under way.
        pending = [(connection, room) for room in rooms if room not in joined or (connection, room) in self._joining]
        for key in pending:
            self._joining[key] = self._joining.get(key, 0) + 1
            self._rooms.join(key[1], connection)
        try:
            await subscriber.subscribe(rooms)
        except BaseException:
            self._leave([room for room in rooms if self._was_last_to_fail((connection, room))], connection)
            raise
        for key in pending:
            self._joining.pop(key, None)

    def _was_last_to_fail(self, key: tuple[WebSocketConnection, str]) -> bool:
        count = self._joining.get(key)  # None: confirmed, by this connection's other join or long ago
        if count is None or count > 1:
            if count is not None:
                self._joining[key] = count - 1
            return False
        del self._joining[key]
        return True

    async def leave(self, rooms: Iterable[str], websocket: WebSocket | WebSocketConnection) -> None:
        """Leave rooms; not being in one is no error.

        Raises:
            BadRoom: a name is not a room; none was left.
        """
        self._leave(check_rooms(rooms), _connection_of(websocket))

    def _take_in(self, connection: WebSocketConnection) -> None:
        if not connection.alive or self._stopping.is_set():
            raise ConnectionClosed(connection.id, connection.close_code, connection.close_reason)
        if connection not in self._connections:
            # One flusher for all that comes to it, or the order would be lost.
            connection.flusher.settle()
            connection.flusher = self.flusher
            self._connections[connection] = None
            connection.on_closed(self._closed)

    def _closed(self, connection: WebSocketConnection) -> None:
        self._counters.overflows += connection.overflowed
        self._counters.conflated += connection.outbound.conflated
        self._counters.evicted += connection.outbound.evicted
        self._let_go(connection)

    def _let_go(self, connection: WebSocketConnection) -> None:
        self._connections.pop(connection, None)
        self._emptied(self._rooms.leave_all(connection))

    def _leave(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        self._emptied([room for room in rooms if self._rooms.leave(room, connection)])

    def _emptied(self, rooms: list[str]) -> None:
        if rooms and self._subscriber is not None:
            self._subscriber.unsubscribe(rooms)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def send(self, rooms: Sequence[str], message: WebSocketMessageBase) -> None:
        """Send to every connection in any of the rooms, on every instance, at once; to each connection once.

        Returns when the backend has accepted it: at most once, in order for each room and sender. Cancellation
        leaves open whether it was accepted.

        Raises:
            BadRoom, MessageIdUnset, MessageNotEncodable: nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        await self.publish([self.prepare(rooms, message)])

    async def broadcast(self, message: bytes | WebSocketMessageBase) -> None:
        """Send to every connection on every instance, at once.

        Args:
            message: a message, or the UTF-8 bytes of a text frame, which go out as they are.

        Raises:
            UnicodeDecodeError: the bytes are not UTF-8; nothing was sent.
            ValueError: they are more than the outbound queue of a connection takes; nothing was sent.
            MessageIdUnset, MessageNotEncodable: nothing was sent.
            BackendUnavailable: the backend did not accept it.
        """
        if isinstance(message, bytes):
            message.decode()
            frame = Frame(message)
            if frame.size > self.settings.max_queue_bytes:
                raise ValueError(f"{len(message)} bytes are more than an outbound queue takes (max_queue_bytes)")
        else:
            frame = self._encode(message)
        self._check_started()
        await self.backend.broadcast(frame.payload)
        self._counters.sent += 1

    def prepare(self, rooms: Sequence[str], message: WebSocketMessageBase) -> Publication:
        """Check the rooms and encode the message: everything that can be wrong with a send, before it is staged."""
        return Publication(check_rooms(rooms), self._encode(message).payload, self._new_id())

    def _new_id(self) -> str:
        return f"{self.instance_id}-{next(self._ids):x}"

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Hand prepared messages to the backend, in order.

        Raises:
            BackendUnavailable: at least one was not accepted; those before it may have been.
        """
        self._check_started()
        if self._batcher is not None:
            await self._batcher.send_many(publications)
        else:
            for publication in publications:
                await self.backend.send(publication.rooms, publication.payload)
        self._counters.sent += len(publications)

    def _check_started(self) -> None:
        if not self._started:
            raise ConfigurationError(
                "the connection manager was never started",
                "enter the application's lifespan first; in a test with jararaca_ws.testing.lifespan(app)",
            )

    def _encode(self, message: WebSocketMessageBase) -> Frame:
        if not isinstance(message, WebSocketMessageBase):
            raise TypeError(f"a {type(message).__name__} cannot be sent: a WebSocketMessage can")
        frame = encode(message)
        if frame.size > self.settings.max_queue_bytes:
            raise MessageNotEncodable(
                type(message),
                f"its frame has {len(frame.data)} bytes, more than the outbound queue of a connection "
                f"({self.settings.max_queue_bytes} bytes, max_queue_bytes)",
            )
        return frame

    # --- delivering: no await between here and the outbound queues ----------------------------------------------------

    async def _deliver_to_rooms(self, rooms: list[str], message: bytes) -> None:
        self._deliver(self._rooms.snapshot(rooms), message)

    async def _deliver_to_all(self, message: bytes) -> None:
        self._deliver(tuple(self._connections), message)

    def _deliver(self, connections: Sequence[WebSocketConnection], message: bytes) -> None:
        if not connections:
            return
        try:
            frame = Frame.of_payload(message)
        except ValueError:
            self._counters.dropped += 1
            if self._counters.dropped > 1 and self._counters.dropped % 1000:
                return
            _log.warning("dropped %d bytes that are no frame, %d so far", len(message), self._counters.dropped)
            return
        self.flusher.deliver(frame, connections)

    def _report_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        self._counters.gaps += 1
        for room in rooms:
            self._tell(self._rooms.members(room), Gap(room=room))
        if broadcasts:
            self._tell(self._connections, Gap(room=None))

    def _tell(self, connections: Collection[WebSocketConnection], control: WebSocketMessageBase) -> None:
        frame = encode(control)
        for connection in connections:
            if connection.understands_control:
                connection.enqueue(frame)


def _connection_of(websocket: WebSocket | WebSocketConnection) -> WebSocketConnection:
    if isinstance(websocket, WebSocketConnection):
        return websocket
    connection = websocket.scope.get(SCOPE_KEY)
    if not isinstance(connection, WebSocketConnection):
        raise ConfigurationError(
            "this WebSocket is not served by jararaca_ws", "declare its route with @WebSocketEndpoint on a controller"
        )
    return connection
