"""Users across the cluster: all connections of one user are in a room of ours, on whichever instance they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jararaca_ws.commands import Disconnect, Leave
from jararaca_ws.errors import BadUserId
from jararaca_ws.rooms import check_text, user_room
from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["obey", "room_of_user"]


def room_of_user(user_id: str) -> str:
    """The room of ours for a user. Every character of the id is literal.

    Raises:
        BadUserId: not 1 to 255 bytes of UTF-8 without control or format characters.
    """
    check_text(user_id, BadUserId)
    return user_room(user_id)


def obey(
    command: Disconnect | Leave,
    connections: Iterable[WebSocketConnection],
    withdraw: Callable[[Iterable[str], WebSocketConnection], None],
) -> None:
    """Do to connections of this instance what an instance has asked of all."""
    for connection in connections:
        if isinstance(command, Disconnect):
            connection.begin_close(command.code, command.reason)
        else:
            withdraw(command.rooms, connection)
