"""Joining and leaving rooms: the registry, the backend's subscriptions and the histories say the same in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jararaca_ws.backends.base import SubscribingBackend
from jararaca_ws.connection import WebSocketConnection
from jararaca_ws.delivering import LocalDelivery
from jararaca_ws.histories import PositionReads
from jararaca_ws.recovery import Recoveries
from jararaca_ws.rooms import is_internal

__all__ = ["Joining"]


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
        # Joins that wait for their confirmation, by connection and room: the last one that fails rolls back.
        self._pending: dict[tuple[WebSocketConnection, str], int] = {}

    async def join(self, rooms: list[str], connection: WebSocketConnection) -> None:
        """Join; returns when everything that is sent to the rooms from now on comes to the connection.

        Raises:
            BackendUnavailable: it was not confirmed; what this call had joined was left again.
        """
        joined = self._delivery.rooms.rooms_of(connection)
        # Those that no join has been confirmed for yet; another one of this connection may be under way.
        pending = [(connection, room) for room in rooms if room not in joined or (connection, room) in self._pending]
        for key in pending:
            self._pending[key] = self._pending.get(key, 0) + 1
            self._enter(key[1], connection)
        try:
            await self._confirm(rooms)
        except BaseException:
            self.leave([room for room in rooms if self._was_last_to_fail((connection, room))], connection)
            raise
        joined = self._delivery.rooms.rooms_of(connection)
        for key in pending:
            if self._pending.pop(key, None) is not None and key[1] in joined:
                self._recoveries.joined(key[1], connection)
        self._moved(rooms, connection)

    def _enter(self, room: str, connection: WebSocketConnection) -> None:
        if is_internal(room):  # it keeps nothing
            self._delivery.rooms.join(room, connection)
            return
        if connection not in self._delivery.rooms.members(room):
            self._recoveries.joining(room, connection)
        if self._delivery.rooms.join(room, connection):
            self._delivery.streams.open(room)

    async def _confirm(self, rooms: list[str]) -> None:
        if self._subscriber is not None:
            await self._subscriber.subscribe(rooms)
        if self._positions is not None:
            await self._positions.track(rooms)

    def _was_last_to_fail(self, key: tuple[WebSocketConnection, str]) -> bool:
        count = self._pending.get(key)  # None: confirmed, by this connection's other join or long ago
        if count is None or count > 1:
            if count is not None:
                self._pending[key] = count - 1
            return False
        del self._pending[key]
        return True

    def leave(self, rooms: Iterable[str], connection: WebSocketConnection) -> None:
        """Leave; not being in a room is no error."""
        rooms = list(rooms)
        self._emptied(self._delivery.leave(rooms, connection))
        self._moved(rooms, connection)

    def leave_all(self, connection: WebSocketConnection) -> None:
        """The connection has gone."""
        self.leave(tuple(self._delivery.rooms.rooms_of(connection)), connection)
        self._recoveries.gone(connection)

    def _emptied(self, rooms: list[str]) -> None:
        if rooms and self._subscriber is not None:
            self._subscriber.unsubscribe(rooms)
