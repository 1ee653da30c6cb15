"""The tokens of the connections of one instance: until when they count, and whether they still do."""

from __future__ import annotations

from jararaca_ws.auth.expiry import Expiries
from jararaca_ws.auth.rechecking import Rechecking
from jararaca_ws.auth.revocation import Revocations
from jararaca_ws.auth.tickets import Tickets
from jararaca_ws.auth.user import User
from jararaca_ws.backends.base import KeepingBackend, WebSocketConnectionBackend
from jararaca_ws.sockets.connection import WebSocketConnection

__all__ = ["Tokens"]


class Tokens:
    """One for each start of a manager.

    Attributes:
        tickets, revocations: what the backend keeps for all instances.
        expiries: of the connections of this one.
    """

    def __init__(self, backend: WebSocketConnectionBackend, warning_s: float) -> None:
        keeper = backend if isinstance(backend, KeepingBackend) else None
        self.tickets = Tickets(keeper)
        self.revocations = Revocations(keeper)
        self.expiries = Expiries(warning_s)
        self._rechecking = Rechecking(self.revocations)

    @property
    def healthy(self) -> bool:
        """Whether what may have been revoked unnoticed is known, or being read."""
        return self._rechecking.healthy

    def set_user(self, user: User, connection: WebSocketConnection) -> None:
        """Say who a connection is, and until when. Who may say so is the caller's business."""
        self.revocations.forget(connection)
        connection.user = user
        self.revocations.watch(connection)
        self.expiries.watch(connection)

    def forget(self, connection: WebSocketConnection) -> None:
        """The connection has gone."""
        if connection.user is not None:
            self.expiries.forget(connection)
            self.revocations.forget(connection)

    def may_have_missed(self) -> None:
        """What was revoked, this instance may not have been told."""
        self._rechecking.recheck(self.revocations.watched())

    async def stop(self) -> None:
        """Leave no task and no timer."""
        self.expiries.stop()
        await self._rechecking.stop()
