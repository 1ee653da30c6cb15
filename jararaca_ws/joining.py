"""Joining and leaving rooms: the registry, the backend's subscriptions and the histories say the same in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jararaca_ws.backends.base import SubscribingBackend
from jararaca_ws.delivering import LocalDelivery
from jararaca_ws.recovery.histories import PositionReads
from jararaca_ws.recovery.recovering import Recoveries
from jararaca_ws.rooms import is_internal
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.room_requests import Left

__all__ = ["Joining"]


class _Entering:
    """A membership that no join has been confirmed for yet; who leaves and joins again gets another one.

    Attributes:
        joins: how many wait for the confirmation: the last one that fails rolls back.
    """

    __slots__ = ("joins",)

    def __init__(self) -> None:
        self.joins = 0


class Joining:
    """The memberships of the connections of one instance."""

    def __init__(
        self,
        delivery: LocalDelivery,
        subscriber: SubscribingBackend | None,
        positions: PositionReads | None,
        recoveries: Recoveries,
        moved: Callable[[Iterable[str], WebSocketConnection], None],
    ) -> None:
        self._delivery = delivery
        # None where the backend carries every room to every instance.
        self._subscriber = subscriber
        # None where the backend keeps no histories.
        self._positions = positions
        self._recoveries = recoveries
        # Told of every join that was confirmed, and every leave.
        self._moved = moved
        self._entering: dict[tuple[WebSocketConnection, str], _Entering] = {}

    async def join(self, rooms: list[str], connection: WebSocketConnection) -> None:
        """Join; returns when everything that is sent to the rooms from now on comes to the connection.

        Raises:
            BackendUnavailable: it was not confirmed; what this call had joined was left again.
        """
        entering = {room: one for room in rooms if (one := self._enter(room, connection)) is not None}
        try:
            if self._subscriber is not None:
                await self._subscriber.subscribe(rooms)
            if self._positions is not None:
                # Not of a room that was left: whoever has joined it since may not be subscribed yet.
                await self._positions.track(self._still_entering(entering, connection))
        except BaseException:
            for one in entering.values():
                one.joins -= 1
            self.leave(
                [room for room in self._still_entering(entering, connection) if not entering[room].joins], connection
            )
            raise
        for room in self._still_entering(entering, connection):
            del self._entering[connection, room]
            self._recoveries.joined(room, connection)
        self._moved(rooms, connection)

    def _enter(self, room: str, connection: WebSocketConnection) -> _Entering | None:
        """Become a member; None where a join of this connection has been confirmed before."""
        key = (connection, room)
        if room not in self._delivery.rooms.rooms_of(connection):
            self._entering[key] = _Entering()
            if not is_internal(room):
                self._recoveries.joining(room, connection)
            if self._delivery.rooms.join(room, connection) and not is_internal(room):  # ours keep nothing
                self._delivery.streams.open(room)
        one = self._entering.get(key)
        if one is not None:
            one.joins += 1
        return one

    def _still_entering(self, entering: dict[str, _Entering], connection: WebSocketConnection) -> list[str]:
        """Those that were neither confirmed nor left since."""
        return [room for room, one in entering.items() if self._entering.get((connection, room)) is one]

    def leave(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        """Leave; not being in a room is no error."""
        rooms = list(rooms)
        for room in rooms:
            self._entering.pop((connection, room), None)
            if connection.granted:
                connection.granted.pop(room, None)
        self._emptied(self._delivery.leave(rooms, connection))
        self._moved(rooms, connection)

    def withdraw(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        """Take a connection out of rooms that it may not be in any more, and tell its client.

        A join that is under way is asked for again.
        """
        connection.permission_changes += 1
        members = self._delivery.rooms.rooms_of(connection)
        left = [room for room in rooms if room in members]
        if left:
            self.leave(left, connection)
            shown = [room for room in left if not is_internal(room)]
            if shown:
                self._delivery.tell([connection], Left(rooms=shown))

    def leave_all(self, connection: WebSocketConnection) -> None:
        """The connection has gone."""
        self.leave(tuple(self._delivery.rooms.rooms_of(connection)), connection)
        self._recoveries.gone(connection)

    def _emptied(self, rooms: list[str]) -> None:
        if rooms and self._subscriber is not None:
            self._subscriber.unsubscribe(rooms)
