"""What an instance does when one of them asks it of all."""

from __future__ import annotations

from collections.abc import Sequence

from jararaca_ws.auth.tokens import Tokens
from jararaca_ws.calling import RemoteCalls
from jararaca_ws.commands import (
    Answer,
    Ask,
    Deliver,
    Disconnect,
    Leave,
    Moved,
    Reauthorize,
    Report,
    Revoke,
    decode_command,
)
from jararaca_ws.delivering import LocalDelivery
from jararaca_ws.joining import Joining
from jararaca_ws.presence import PresenceTracker
from jararaca_ws.reauthorizing import Reauthorizing
from jararaca_ws.rooms import user_room
from jararaca_ws.surveying import Surveys

__all__ = ["Obeying"]


class Obeying:
    """The commands that reach one instance, each handed to whom it concerns; synchronous."""

    def __init__(
        self,
        delivery: LocalDelivery,
        joining: Joining,
        calls: RemoteCalls,
        surveys: Surveys,
        tokens: Tokens,
        reauthorizing: Reauthorizing,
        tracker: PresenceTracker | None,
    ) -> None:
        self._delivery = delivery
        self._joining = joining
        self._calls = calls
        self._surveys = surveys
        self._tokens = tokens
        self._reauthorizing = reauthorizing
        # None where presence is not switched on.
        self._tracker = tracker

    def obey(self, rooms: Sequence[str], payload: bytes) -> None:
        """Do what came through these rooms of ours."""
        try:
            command = decode_command(payload)
        except ValueError:
            self._delivery.drop(payload, "command")
            return
        if isinstance(command, Answer):
            if not self._surveys.answered(command):
                self._calls.answered(command)
        elif isinstance(command, Report):
            self._surveys.asked(command)
        elif isinstance(command, Deliver):
            self._delivery.to_connection(command.connection, command.payload.encode())
        elif isinstance(command, Revoke):
            of_user = () if command.user_id is None else self._delivery.rooms.members(user_room(command.user_id))
            self._tokens.revocations.obey(command, of_user)
        elif not isinstance(command, Moved):
            self._obey_for_user(command, rooms)
        elif self._tracker is not None:
            self._tracker.nudged(rooms)

    def _obey_for_user(self, command: Disconnect | Leave | Reauthorize | Ask, rooms: Sequence[str]) -> None:
        connections = self._delivery.rooms.snapshot(rooms)
        if isinstance(command, Ask):
            self._calls.asked(command, connections)
        elif isinstance(command, Reauthorize):
            self._reauthorizing.ask_again(connections, strictly=True)
        elif isinstance(command, Leave):
            for connection in connections:
                self._joining.withdraw(command.rooms, connection)
        else:
            for connection in connections:
                connection.begin_close(command.code, command.reason)
