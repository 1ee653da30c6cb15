"""The connection manager: who is in which room, encode once, publish; what comes back is `delivering`'s."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any

from starlette.websockets import WebSocket

from jararaca_ws.auth.access import LET_IN_KEY
from jararaca_ws.auth.tokens import Tokens
from jararaca_ws.backends.base import (
    BatchingBackend,
    CountingBackend,
    GapReportingBackend,
    HistoryBackend,
    StartableBackend,
    StreamPosition,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.backends.presence import PresenceEntry, PresenceStore
from jararaca_ws.bookkeeping import Bookkeeping
from jararaca_ws.calling import RemoteCalls
from jararaca_ws.configuring import EffectiveSetting, HasSettings, warn_of_unknown_variables
from jararaca_ws.delivering import Counters, LocalDelivery
from jararaca_ws.delivery import MAX_HISTORY
from jararaca_ws.errors import ConfigurationError, ConnectionClosed, quoted
from jararaca_ws.figures import InstanceStatistics, Statistics
from jararaca_ws.health import Health, ReportsHealth
from jararaca_ws.joining import Joining
from jararaca_ws.limits.admission import Admission
from jararaca_ws.messages import check_message_ids
from jararaca_ws.obeying import Obeying
from jararaca_ws.preparing import Preparation
from jararaca_ws.presence import PresenceSettings, PresenceTracker, presence_store
from jararaca_ws.publishing import Publishing
from jararaca_ws.reauthorizing import Reauthorizing
from jararaca_ws.recovery.healing import Healer
from jararaca_ws.recovery.histories import HistoryReads, PositionReads
from jararaca_ws.recovery.recovering import Recoveries
from jararaca_ws.rooms import ALL_INSTANCES, check_room, check_rooms, instance_room, is_internal
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.surveying import Surveys
from jararaca_ws.typed_rooms import AnyRoom, Room, RoomClasses, authorize
from jararaca_ws.users import room_of_user
from jararaca_ws.wire.retained import RoomHistory

__all__ = ["SCOPE_KEY", "Counters", "WebSocketConnectionManager"]

SCOPE_KEY = "jararaca_ws.sockets.connection"
"""Where the ASGI scope of a served WebSocket holds its `WebSocketConnection`."""


class WebSocketConnectionManager(Publishing):
    """The connections and rooms of one instance, and the way to the rooms of all.

    A `WebSocketInterceptor` makes one and binds it for every unit of work. In a script or a test::

        async with WebSocketConnectionManager(backend) as manager:
            await manager.send(["chat-7"], ChatMessage(text="hello"))

    Attributes:
        admission: what stands before the handshakes of this instance.
        tokens: of the connections of this instance.
        reauthorizing: has the rooms of connections asked again whether they may stay.
        delivery: the connections and rooms of this instance, and what is delivered to them.
        draining: whether the process is about to end; set from outside. New WebSockets are refused with 503.
        room_classes: of the typed rooms that connections of this instance join, or may.
    """

    def __init__(
        self,
        backend: WebSocketConnectionBackend,
        *,
        settings: WebSocketSettings | None = None,
        presence: PresenceSettings | None = None,
    ) -> None:
        given: Any = backend  # whatever it is
        if isinstance(given, type):
            raise ConfigurationError(f"backend={given.__name__} is a class", "give an instance of it")
        if not isinstance(given, WebSocketConnectionBackend):
            raise ConfigurationError(
                f"a {type(backend).__name__} is not a WebSocket backend",
                "it needs the methods of WebSocketConnectionBackend",
            )
        for chosen, cls in ((settings, WebSocketSettings), (presence, PresenceSettings)):
            if chosen is not None and not isinstance(chosen, cls):
                raise ConfigurationError(f"{chosen!r} are no settings", f"write {cls.__name__}(...)")
        self.settings = settings or WebSocketSettings()
        self.flusher = TickFlusher()
        # None where the backend keeps no histories.
        self._history = (
            backend if isinstance(backend, HistoryBackend) and isinstance(backend, BatchingBackend) else None
        )
        preparation = Preparation(backend, self.settings.max_queue_bytes, keeps_histories=self._history is not None)
        super().__init__(backend, preparation, LocalDelivery(self.flusher))
        # None where the backend carries every room to every instance.
        self._subscriber = backend if isinstance(backend, SubscribingBackend) else None
        self._stopping = asyncio.Event()
        self._books = Bookkeeping(self.instance_id, self.delivery, self.flusher)
        self.tally = self._books.tally
        self.draining = False
        self.room_classes = RoomClasses()
        # None where presence is not switched on.
        self._presence = None if presence is None else (presence_store(backend, self.instance_id, presence), presence)
        self._build()

    def _build(self) -> None:
        # At each start anew: it belongs to one event loop.
        delivery, history = self.delivery, self._history
        self._reads = None if history is None else HistoryReads(history)
        self._healer = None if history is None or self._reads is None else Healer(history, self._reads, delivery)
        self._recoveries = Recoveries(delivery, self._reads)
        self._calls = RemoteCalls(self.instance_id, self._commands)
        counting = self.backend.subscribers if isinstance(self.backend, CountingBackend) else None
        self._surveys = Surveys(self.instance_id, self._command, counting, self._books.statistics, self._calls.reply)
        self._joining = Joining(
            delivery,
            self._subscriber,
            None if history is None else PositionReads(history, delivery.streams),
            self._recoveries,
            self._moved,
        )
        self.tokens = Tokens(self.backend, self.settings.expiry_warning.total_seconds())
        self.reauthorizing = Reauthorizing(self, self._joining.withdraw)
        self._tracker = None if self._presence is None else self._make_tracker(*self._presence)
        self.admission = Admission(self.settings, self.backend, self.instance_id)
        if self._healer is not None:
            delivery.on_hole = self._healer.heal
        obeying = Obeying(
            delivery, self._joining, self._calls, self._surveys, self.tokens, self.reauthorizing, self._tracker
        )
        delivery.on_command = obeying.obey

    def _make_tracker(self, store: PresenceStore, settings: PresenceSettings) -> PresenceTracker:
        return PresenceTracker(
            store, settings, self.delivery.rooms, join=self._join, leave=self._joining.leave, command=self._command
        )

    @property
    def instance_id(self) -> str:
        """Unique among all processes."""
        return self._preparation.instance_id

    @property
    def counters(self) -> Counters:
        """What this instance has done since it started."""
        return self._books.counters

    def instance_statistics(self) -> InstanceStatistics:
        """What is here now, and what this instance has done since it started. At once."""
        return self._books.statistics()

    async def statistics(self, timeout: timedelta = timedelta(seconds=1)) -> Statistics:
        """Ask all instances for their statistics, and add them up.

        Returns when all have answered, at the latest after the timeout: an instance that hangs is counted as
        ``missing``. Where the backend does not know how many there are (`CountingBackend`), it always takes that long,
        and `missing` is None; so it is where the backend is away, and then this instance is the only one.

        Raises:
            ConfigurationError: the manager was never started.
        """
        self._check_started()
        return await self._surveys.statistics(timeout)

    def effective_settings(self) -> dict[str, list[EffectiveSetting]]:
        """How this instance is set, by the class of what is set; without secrets."""
        parts = [self.settings, *(() if self._presence is None else (self._presence[1],)), self.backend]
        return {type(part).__name__: part.effective() for part in parts if isinstance(part, HasSettings)}

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Configure and start the backend.

        Raises:
            DuplicateMessageId: two message classes have one ``MESSAGE_ID``.
            BackendUnavailable: the backend cannot be reached.
        """
        check_message_ids()
        warn_of_unknown_variables()
        self._started = True
        self._books.start()
        self.draining = False
        self._stopping = asyncio.Event()
        self._build()
        self.backend.configure(self.delivery.to_all, self.delivery.to_rooms, self._stopping)
        if isinstance(self.backend, GapReportingBackend):
            self.backend.on_gap(self._report_gap)
        if self._history is not None:
            self._history.on_entry(self.delivery.entry)
        try:
            if isinstance(self.backend, StartableBackend):
                await self.backend.start()
            if self._subscriber is not None:
                await self._subscriber.subscribe([instance_room(self.instance_id), ALL_INSTANCES])
            if self._tracker is not None:
                await self._tracker.start()
            self.admission.start()
        except BaseException:
            await self._shut_backend_down()
            raise

    async def stop(self) -> None:
        """Close every connection, with 1012 or 4001, and shut the backend down. Takes no socket in; leaves no task."""
        self._stopping.set()
        connections = tuple(self.connections)
        for connection in connections:
            connection.begin_shutdown()
        for connection in connections:  # they close side by side, each within its own timeouts
            await connection.closed.wait()
        if self._tracker is not None:
            await self._tracker.stop()
        await self._shut_backend_down()

    async def _shut_backend_down(self) -> None:
        self._stopping.set()
        await self.tokens.stop()
        await self.reauthorizing.stop()
        await self.admission.stop()
        await self._calls.stop()
        await self._recoveries.stop()
        if self._healer is not None:
            await self._healer.stop()
        await self.backend.shutdown()

    async def __aenter__(self) -> WebSocketConnectionManager:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def health(self) -> list[Health]:
        """How well this instance is, and its backend where that says it. Not well while it drains."""
        reason = ""
        if not self._started or self._stopping.is_set():
            reason = "it is not started"
        elif self.draining:
            reason = "it is about to end"
        elif self._healer is not None and not self._healer.healthy:
            reason = "what was missed cannot be read yet"
        elif not self.tokens.healthy:
            reason = "whether tokens were revoked cannot be read yet"
        elif self._tracker is not None and not self._tracker.healthy:
            reason = "presence is not up to date"
        own = Health(name="websockets", healthy=not reason, reason=reason)
        return [own, *(self.backend.health() if isinstance(self.backend, ReportsHealth) else ())]

    # --- connections and rooms ----------------------------------------------------------------------------------------

    @property
    def connections(self) -> Collection[WebSocketConnection]:
        """The connections of this instance: a live view, not to be kept across an await."""
        return self.delivery.connections.keys()

    def rooms_of(self, connection: WebSocketConnection) -> Collection[str]:
        """The rooms that a connection of this instance is in."""
        return [room for room in self.delivery.rooms.rooms_of(connection) if not is_internal(room)]

    def members(self, room: AnyRoom) -> Collection[WebSocketConnection]:
        """The connections of this instance in a room: a live view."""
        return self.delivery.rooms.members(str(room))

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that have a member on this instance."""
        return tuple(room for room in self.delivery.rooms if not is_internal(room))

    async def add_websocket(self, websocket: WebSocket | WebSocketConnection) -> WebSocketConnection:
        """Take a socket in: broadcasts reach it, once it is accepted. Safe to call again.

        Raises:
            ConnectionClosed: it is closed.
            ConfigurationError: it is served neither by a ``@WebSocketEndpoint`` nor by a host.
        """
        connection = _connection_of(websocket)
        self._take_in(connection)
        return connection

    async def remove_websocket(self, websocket: WebSocket | WebSocketConnection) -> None:
        """Let a socket go: it leaves its rooms and gets nothing more. Does not close it. Safe to call again."""
        self._let_go(_connection_of(websocket))

    async def join(self, rooms: Iterable[AnyRoom], websocket: WebSocket | WebSocketConnection) -> None:
        """Join rooms; takes the socket in where that has not been done. Joining again is no error.

        When it returns, everything that is sent to the rooms from now on comes to the socket. A socket that has gone
        is in no room, whenever it went. A typed room is asked first whether it may.

        Raises:
            BadRoom: a name is not a room; none was joined.
            PermissionDenied: a typed room refuses; none was joined.
            DuplicateRoomPattern: its class and another that was joined here can make one name; none was joined.
            ConnectionClosed: the socket is closed.
            BackendUnavailable: a subscription was not confirmed; what this call had joined was left again.
        """
        connection, rooms = _connection_of(websocket), rooms if isinstance(rooms, str | Room) else list(rooms)
        names = check_rooms(rooms)
        self.room_classes.add(*(type(room) for room in rooms if isinstance(room, Room)))
        await authorize(rooms, connection)
        await self._join(names, connection)

    async def _join(self, names: list[str], connection: WebSocketConnection) -> None:
        self._take_in(connection)
        await self._joining.join(names, connection)
        if not connection.alive or self._stopping.is_set():
            raise ConnectionClosed(connection.id, connection.close_code, connection.close_reason)

    async def leave(self, rooms: Iterable[AnyRoom], websocket: WebSocket | WebSocketConnection) -> None:
        """Leave rooms; not being in one is no error.

        Raises:
            BadRoom: a name is not a room; none was left.
        """
        self._joining.leave(check_rooms(rooms), _connection_of(websocket))

    async def identify(self, user_id: str, connection: WebSocketConnection) -> None:
        """Say whose connection it is: see `WebSocketConnection.identify`."""
        room = room_of_user(user_id)
        is_new = await self.admission.identify(user_id, connection)
        try:
            await self._join([room], connection)
        except BaseException:
            if is_new:
                self.admission.leave_user(user_id, connection)
            raise
        # What this user was before; looked at only now, because another call may have been faster.
        if connection.user_id is not None and connection.user_id != user_id:
            self._joining.leave([room_of_user(connection.user_id)], connection)
            self.admission.leave_user(connection.user_id, connection)
        connection.user_id = user_id
        self._moved(self.delivery.rooms.rooms_of(connection), connection)

    def _take_in(self, connection: WebSocketConnection) -> None:
        if not connection.alive or self._stopping.is_set():
            raise ConnectionClosed(connection.id, connection.close_code, connection.close_reason)
        if connection not in self.delivery.connections:
            if connection.scope.get(LET_IN_KEY) is False:
                raise ConfigurationError(
                    f"nobody has asked who the client of {quoted(str(connection.scope.get('path')))} is",
                    "take its connection with Depends(current_connection), before it joins anything",
                )
            if self.draining and connection.accepted:
                # Accepted when the end had begun already, so the drain does not know it.
                connection.begin_shutdown()
                raise connection.end()
            self.delivery.take_in(connection)
            connection.on_closed(self._closed)
            self._recoveries.expect(connection)

    def _closed(self, connection: WebSocketConnection) -> None:
        self.delivery.add_up(connection)
        self._let_go(connection)
        self.tokens.forget(connection)  # not before: who was only let go can still send

    def _let_go(self, connection: WebSocketConnection) -> None:
        self.delivery.let_go(connection)
        self._joining.leave_all(connection)

    # --- presence -----------------------------------------------------------------------------------------------------

    async def presence(self, room: AnyRoom) -> list[PresenceEntry]:
        """The connections that are in a room now, on every instance.

        It has what this instance did before. What another one did follows within moments; the members of an instance
        that was killed are in it until the TTL is over.

        Raises:
            BadRoom: it is not a room.
            ConfigurationError: presence is not switched on.
            BackendUnavailable: it cannot be read.
        """
        self._check_started()
        return await self.tracker.entries(check_room(room))

    @property
    def tracker(self) -> PresenceTracker:
        """What keeps presence.

        Raises:
            ConfigurationError: presence is not switched on.
        """
        if self._tracker is None:
            raise ConfigurationError(
                "presence is not switched on", "WebSocketInterceptor(presence=PresenceSettings()) does that"
            )
        return self._tracker

    def _moved(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        if self._tracker is not None:
            self._tracker.touch(rooms, connection)

    def _report_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        self.delivery.report_gap(rooms, broadcasts=broadcasts)
        self.tokens.may_have_missed()
        self.reauthorizing.ask_again(self.connections, strictly=False)
        if self._tracker is not None:
            self._tracker.nudged(rooms)

    # --- histories ----------------------------------------------------------------------------------------------------

    async def history(self, room: AnyRoom, since: StreamPosition | None = None, limit: int = 100) -> RoomHistory:
        """What a room keeps of its `recoverable` messages: for a REST endpoint, say, that plain clients read first.

        Who may read it is the caller's business.

        Args:
            room: whose history.
            since: everything after it, or nothing (``recovered`` is False) where some of that is not kept any more or
                is more than ``limit``. None: the newest ``limit`` of those that are kept.
            limit: at most so many messages, 1 to 10,000.

        Raises:
            BadRoom: not a room.
            ValueError: the limit is out of bounds.
            ConfigurationError: the backend keeps no histories, or the manager was never started.
            BackendUnavailable: it cannot be read.
        """
        name = check_room(room)
        if not 1 <= limit <= MAX_HISTORY:
            raise ValueError(f"limit={limit} is not 1 to {MAX_HISTORY}")
        if self._reads is None:
            raise ConfigurationError(f"a {type(self.backend).__name__} keeps no histories", "use one that does")
        self._check_started()
        return RoomHistory.of(await self._reads.read(name, since, limit))


def _connection_of(websocket: WebSocket | WebSocketConnection) -> WebSocketConnection:
    if isinstance(websocket, WebSocketConnection):
        return websocket
    connection = websocket.scope.get(SCOPE_KEY)
    if not isinstance(connection, WebSocketConnection):
        raise ConfigurationError(
            "this WebSocket is not served by jararaca_ws",
            "declare its route with @WebSocketEndpoint on a controller, or call WebSocketInterceptor().install(app)",
        )
    return connection
