"""From the backend to the outbound queues of this instance: no await that waits, and so one order for all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from jararaca_ws.backends.base import Entry, StreamPosition
from jararaca_ws.commands import MARK
from jararaca_ws.delivery import excluded_id
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.recovery.copies import Copies
from jararaca_ws.recovery.streams import Streams, Verdict
from jararaca_ws.rooms import RoomRegistry, is_instance, is_internal, watched_room
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.flushing import TickFlusher
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import CloseCode, Gap, encode
from jararaca_ws.wire.retained import Position, retained_frame

__all__ = ["Counters", "Hold", "LocalDelivery"]

_log = logging.getLogger("jararaca_ws")


@dataclass(slots=True)
class Counters:
    """What this instance has done since it started.

    Attributes:
        sent: messages given to the backend and accepted.
        delivered: frames written to sockets, or put into outbound queues.
        overflows: connections closed with 4008.
        gaps: times at which the backend may have missed something.
        dropped: what came through the backend and was no frame, no entry of a history, and no command that this
            version knows.
        conflated, evicted: frames that a newer one replaced before they were written (`latest`), or that made room for
            one (``drop_oldest``).
        healed: messages that had been missed, and were read from a room's history.
        insufficient: connections closed with 4010, because what was missed is not kept any more.
        recovered, not_recovered: rooms of clients that came back, with all that they had missed or without.
    """

    sent: int = 0
    delivered: int = 0
    overflows: int = 0
    gaps: int = 0
    dropped: int = 0
    conflated: int = 0
    evicted: int = 0
    healed: int = 0
    insufficient: int = 0
    recovered: int = 0
    not_recovered: int = 0


class Hold:
    """One membership that gets nothing of what the room keeps, because what it has missed comes first.

    Attributes:
        since: where the room was when the connection joined; None until the join is confirmed.
        upto: the offset that was replayed last, when the replay has ended before the room came so far; else None.
    """

    __slots__ = ("since", "upto")

    def __init__(self) -> None:
        self.since: StreamPosition | None = None
        self.upto: int | None = None


class LocalDelivery:
    """The connections and rooms of one instance, and what is delivered to them.

    Attributes:
        connections: in the order of their arrival; a dict because a set has none.
        by_id: the same, by their ids.
        rooms: who is in which.
        streams: how far each room's history has come here.
        on_hole: called, synchronously, with the rooms in which entries may be missing.
        on_command: called, synchronously, with what another instance asks, and the rooms of ours that it came through.
    """

    def __init__(self, flusher: TickFlusher) -> None:
        self.counters = Counters()
        self._flusher = flusher
        self.connections: dict[WebSocketConnection, None] = {}
        self.by_id: dict[str, WebSocketConnection] = {}
        self.rooms: RoomRegistry[WebSocketConnection] = RoomRegistry()
        self.streams = Streams()
        self.copies = Copies()
        self.on_hole: Callable[[Collection[str]], None] = _nothing_is_kept
        self.on_command: Callable[[Sequence[str], bytes], None] = self._drop_command
        self._held: dict[str, dict[WebSocketConnection, Hold]] = {}

    # --- connections --------------------------------------------------------------------------------------------------

    def take_in(self, connection: WebSocketConnection) -> None:
        """Deliver to a connection from now on."""
        # One flusher for all that comes to it, or the order would be lost.
        connection.flusher.settle()
        connection.flusher = self._flusher
        self.connections[connection] = None
        self.by_id[connection.id] = connection

    def let_go(self, connection: WebSocketConnection) -> None:
        """Forget a connection, which leaves its rooms apart from this; not having taken it in is no error."""
        self.connections.pop(connection, None)
        self.by_id.pop(connection.id, None)

    def add_up(self, connection: WebSocketConnection) -> None:
        """Count what a connection that has closed has counted itself."""
        self.counters.overflows += connection.overflowed
        self.counters.conflated += connection.outbound.conflated
        self.counters.evicted += connection.outbound.evicted

    # --- messages that are not kept -----------------------------------------------------------------------------------

    async def to_rooms(self, rooms: list[str], message: bytes) -> None:
        """`SendFunc`."""
        if message.startswith(MARK):
            self.on_command(rooms, message)
            return
        connections = self.rooms.snapshot(rooms)
        excluded = self._excluded(message)
        if excluded is not None:
            connections = tuple(connection for connection in connections if connection is not excluded)
        self._deliver(connections, message)

    def _excluded(self, payload: bytes) -> WebSocketConnection | None:
        """The connection of this instance that does not get it."""
        connection_id = excluded_id(payload)
        return None if connection_id is None else self.by_id.get(connection_id)

    async def to_all(self, message: bytes) -> None:
        """`BroadcastFunc`."""
        self._deliver(tuple(self.connections), message)

    def to_connection(self, connection_id: str, message: bytes) -> None:
        """Deliver to one connection; one that has gone is no error."""
        connection = self.by_id.get(connection_id)
        if connection is not None:
            self._deliver((connection,), message)

    def _deliver(self, connections: Sequence[WebSocketConnection], message: bytes) -> None:
        if not connections:
            return
        try:
            frame = Frame.of_payload(message)
        except ValueError:
            self.drop(message)
            return
        self._flusher.deliver(frame, connections)

    def drop(self, message: bytes, what: str = "frame") -> None:
        """Count what came through the backend and is not what it should be."""
        self.counters.dropped += 1
        if self.counters.dropped == 1 or self.counters.dropped % 1000 == 0:
            _log.warning("dropped %d bytes that are no %s, %d so far", len(message), what, self.counters.dropped)

    def _drop_command(self, rooms: Sequence[str], message: bytes) -> None:
        self.drop(message, "command")

    # --- messages that are kept ---------------------------------------------------------------------------------------

    async def entry(self, room: str, entry: Entry, rooms: Sequence[str]) -> None:
        """`EntryFunc`."""
        stream = self.streams.get(room)
        if stream is None:
            return  # nobody is in it any more
        verdict = stream.accept(entry)
        if verdict is Verdict.DELIVER:
            copies = len(rooms) > 1 and sum(map(self.streams.__contains__, rooms)) > 1
            self.deliver_entry(room, entry, has_copies=copies)
        elif verdict is Verdict.HOLE:
            self.on_hole([room])

    def deliver_entry(self, room: str, entry: Entry, *, has_copies: bool) -> None:
        """Deliver what comes next in a room's history to its members.

        ``has_copies``: it may come here through another room as well. Only then is it remembered who got it.
        """
        frame = self.frame_of(room, entry)
        if frame is None:
            return
        members = self._live_members(room, entry)
        excluded = self._excluded(entry.payload)
        if excluded is not None and excluded in members:
            members = [member for member in members if member is not excluded]
            self.tell([excluded], position_of(room, entry.position))
        if has_copies:
            members = self._without_second_copies(room, entry, members)
        if members:
            self._flusher.deliver(frame, members)

    def frame_of(self, room: str, entry: Entry) -> Frame | None:
        """The frame of a kept message; None, and counted, where it is no frame."""
        try:
            return retained_frame(room, entry)
        except ValueError:
            self.drop(entry.payload)
            return None

    def _live_members(self, room: str, entry: Entry) -> Sequence[WebSocketConnection]:
        members = self.rooms.snapshot([room])
        held = self._held.get(room)
        if held is None:
            return members
        for connection, hold in tuple(held.items()):
            if hold.upto is not None and hold.upto < entry.position.offset:
                self.release(room, connection)
        return [connection for connection in members if connection not in held]

    def _without_second_copies(
        self, room: str, entry: Entry, members: Sequence[WebSocketConnection]
    ) -> Sequence[WebSocketConnection]:
        first: list[WebSocketConnection] = []
        later: list[WebSocketConnection] = []
        for connection in members:
            (later if self.copies.got(entry.id, connection.id) else first).append(connection)
        self.tell(later, position_of(room, entry.position))
        self.copies.add(entry.id, room, [connection.id for connection in first])
        return first

    # --- what waits for a recovery ------------------------------------------------------------------------------------

    def hold(self, room: str, connection: WebSocketConnection) -> Hold:
        """Deliver nothing of what the room keeps to this member, until `release`."""
        return self._held.setdefault(room, {}).setdefault(connection, Hold())

    def hold_of(self, room: str, connection: WebSocketConnection) -> Hold | None:
        return self._held.get(room, {}).get(connection)

    def held_rooms(self, connection: WebSocketConnection) -> list[str]:
        return [room for room in self.rooms.rooms_of(connection) if self.hold_of(room, connection) is not None]

    def release(self, room: str, connection: WebSocketConnection) -> None:
        """From now on the member gets what comes; or it has left."""
        held = self._held.get(room)
        if held is not None:
            held.pop(connection, None)
            if not held:
                del self._held[room]

    # --- leaving ------------------------------------------------------------------------------------------------------

    def leave(self, rooms: Iterable[str], connection: WebSocketConnection) -> list[str]:
        """Take a member out of rooms; returns those that are empty now."""
        left = list(rooms)
        for room in left:
            self.release(room, connection)
        emptied = [room for room in left if self.rooms.leave(room, connection)]
        self.streams.close(emptied)
        return emptied

    # --- what may have been missed ------------------------------------------------------------------------------------

    def report_gap(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        """`GapFunc`. What the rooms keep is read from their histories; of the rest, members are told.

        Of every room: nobody knows whether something was sent to it meanwhile that it does not keep.
        """
        self.counters.gaps += 1
        self.on_hole(self.streams.may_have_missed(rooms))
        for room in rooms:
            if is_internal(room):
                if not broadcasts and watched_room(room) is None:
                    # What was sent to a user, or to a connection, came through no room that its client knows.
                    self.tell(self.connections if is_instance(room) else self.rooms.members(room), Gap(room=None))
            else:
                self.tell(self.rooms.members(room), Gap(room=room))
        if broadcasts:
            self.tell(self.connections, Gap(room=None))

    def close_insufficient(self, connections: Collection[WebSocketConnection], room: str) -> None:
        """Close with 4010: what was missed of a room is not kept any more."""
        alive = [connection for connection in connections if connection.alive]
        self.counters.insufficient += len(alive)
        _log.warning("messages to a room were lost (%r); closing %d connections with 4010", room, len(alive))
        for connection in alive:
            connection.begin_close(CloseCode.INSUFFICIENT_STATE, "insufficient state")

    def tell(self, connections: Collection[WebSocketConnection], control: WebSocketMessageBase) -> None:
        """Send a control message to those who understand it, or will when they are accepted."""
        frame = None
        for connection in connections:
            if connection.may_be_told:
                frame = frame or encode(control)
                connection.enqueue(frame)


def position_of(room: str, position: StreamPosition) -> Position:
    """The control message that says how far a client has come."""
    return Position(room=room, epoch=position.epoch, offset=position.offset)


def _nothing_is_kept(rooms: Collection[str]) -> None:
    """No history: there are no holes in one."""
