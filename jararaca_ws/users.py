"""Users across the cluster: all connections of one user are in a room of ours, on whichever instance they are."""

from __future__ import annotations

from jararaca_ws.errors import BadUserId
from jararaca_ws.rooms import check_text, user_room

__all__ = ["room_of_user"]


def room_of_user(user_id: str) -> str:
    """The room of ours for a user. Every character of the id is literal.

    Raises:
        BadUserId: not 1 to 255 bytes of UTF-8 without control or format characters.
    """
    check_text(user_id, BadUserId)
    return user_room(user_id)
