"""Tokens that count no more, although their time is not over: on all instances, and for who comes later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from itertools import chain

from jararaca_ws.auth.user import User
from jararaca_ws.backends.base import KeepingBackend
from jararaca_ws.commands import Revoke
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.wire.protocol import CloseCode

__all__ = ["Revocations", "close_revoked"]

_RECENT_S = 60.0
"""Longer than a handshake takes from the look at the backend to the end."""


class Revocations:
    """What was revoked, as the backend keeps it, and what this instance was told of it lately.

    A handshake asks the backend, and then, in the moment in which its connection can be found by who revokes, this
    instance: so it makes no difference which of the two is faster.

    Args:
        backend: None where it keeps nothing.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        backend: KeepingBackend | None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._wall = wall
        self._clock = clock
        # By what was revoked: when, by the wall clock; and until when that is remembered, by the other. In that order.
        self._recent: dict[str, tuple[float, float]] = {}
        # By the user and by the id of a token, who has shown it: also who is called another user since.
        self._shown: dict[tuple[str, str], dict[WebSocketConnection, None]] = {}

    # --- who is here --------------------------------------------------------------------------------------------------

    def watch(self, connection: WebSocketConnection) -> None:
        """Be able to find a connection by its token."""
        for name in _names(connection.user):
            self._shown.setdefault(name, {})[connection] = None

    def forget(self, connection: WebSocketConnection) -> None:
        """It has gone, or is about to have another token; not being watched is no error."""
        for name in _names(connection.user):
            holders = self._shown.get(name, {})
            holders.pop(connection, None)
            if not holders:
                self._shown.pop(name, None)

    def watched(self) -> Iterable[WebSocketConnection]:
        """All who have shown a token."""
        return dict.fromkeys(chain.from_iterable(self._shown.values()))

    # --- what counts no more ------------------------------------------------------------------------------------------

    async def add(self, user_id: str | None, token_id: str | None, lifetime: timedelta) -> Revoke:
        """Refuse what was issued until now; returns what the other instances are to be told.

        Raises:
            ValueError: nothing was named, or two; or a lifetime that is none.
            ConfigurationError: the backend keeps nothing.
            BackendUnavailable: nothing was revoked, as far as is known.
        """
        if (user_id is None) == (token_id is None):
            raise ValueError("revoke a user_id or a token_id: one of them")
        if lifetime <= timedelta(0):
            raise ValueError(f"lifetime={lifetime!r} is none")
        if self._backend is None:
            raise ConfigurationError(
                "this backend cannot remember what was revoked", "it needs the methods of KeepingBackend"
            )
        command = Revoke(user_id=user_id, token_id=token_id, at=self._wall())
        ttl_ms = max(1, round(lifetime.total_seconds() * 1000))
        await self._backend.keep(_key(command), str(command.at).encode(), ttl_ms)
        return command

    async def are_revoked(self, users: Sequence[User]) -> list[bool]:
        """Ask the backend, of each, whether its token counts no more.

        Raises:
            BackendUnavailable: nobody knows.
        """
        if self._backend is None:
            return [False] * len(users)
        marks = [mark for user in users for mark in _marks(user)]
        found = dict(zip(marks, await self._backend.kept([key for key, _ in marks]), strict=True))
        return [any(_is_revoked(since, found[key, since]) for key, since in _marks(user)) for user in users]

    async def check(self, user: User) -> None:
        """Ask the backend whether a token still counts.

        Raises:
            AuthenticationFailed: it was revoked.
            BackendUnavailable: nobody knows.
        """
        [revoked] = await self.are_revoked([user])
        if revoked:
            raise AuthenticationFailed("the token was revoked")

    def check_recent(self, user: User) -> None:
        """Ask this instance; synchronous.

        Raises:
            AuthenticationFailed: it was revoked.
        """
        for key, since in _marks(user):
            if key in self._recent and since <= self._recent[key][0]:
                raise AuthenticationFailed("the token was revoked")

    def obey(self, command: Revoke, of_user: Iterable[WebSocketConnection]) -> None:
        """Close what is meant of the connections of this instance, and remember it for those under way.

        ``of_user`` are those that the application calls the user's, where one is meant.
        """
        now = self._clock()
        at, _ = self._recent.pop(_key(command), (command.at, now))
        self._recent[_key(command)] = (max(at, command.at), now + _RECENT_S)
        while self._recent and (first := next(iter(self._recent))) and self._recent[first][1] < now:
            del self._recent[first]
        for connection in (*self._shown.get(_name(command), ()), *of_user):
            # Of a connection without a token, the application says that it is the user's.
            if connection.user is None or command.token_id is not None or _issued_s(connection.user) <= command.at:
                close_revoked(connection)


def close_revoked(connection: WebSocketConnection) -> None:
    """Close a connection whose token counts no more."""
    connection.begin_close(CloseCode.INVALID_TOKEN, "the token was revoked")


def _issued_s(user: User) -> float:
    return 0.0 if user.issued_at is None else user.issued_at.timestamp()


def _marks(user: User) -> list[tuple[str, float]]:
    """What revokes a token, and since when that would have to be. One that is named comes only once: any time."""
    marks = [(_digest("user", user.id), _issued_s(user))]
    return marks if user.token_id is None else [*marks, (_digest("token", user.token_id), 0.0)]


def _is_revoked(since: float, moment: bytes | None) -> bool:
    return moment is not None and since <= float(moment)


def _names(user: User | None) -> list[tuple[str, str]]:
    if user is None:
        return []
    return [("user", user.id)] if user.token_id is None else [("user", user.id), ("token", user.token_id)]


def _name(command: Revoke) -> tuple[str, str]:
    return ("user", str(command.user_id)) if command.token_id is None else ("token", command.token_id)


def _key(command: Revoke) -> str:
    return _digest("user", command.user_id) if command.token_id is None else _digest("token", command.token_id)


def _digest(kind: str, name: str | None) -> str:
    # Whatever their length and their characters are.
    return f"revoked:{kind}:{blake2b(str(name).encode(), digest_size=16).hexdigest()}"
