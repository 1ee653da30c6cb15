"""Tickets: what stands for a user for a few seconds, once."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from pydantic import TypeAdapter

from jararaca_ws.auth.user import User
from jararaca_ws.backends.base import KeepingBackend
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError

__all__ = ["MAX_TICKET_LIFE", "Tickets"]

MAX_TICKET_LIFE = timedelta(seconds=30)

_user = TypeAdapter(User)


class Tickets:
    """Tickets that any instance has made, and any takes; the backend keeps a digest of each, never the ticket.

    Args:
        backend: None where it keeps nothing.
    """

    def __init__(self, backend: KeepingBackend | None) -> None:
        self._backend = backend

    async def mint(self, user: User, life: timedelta) -> str:
        """A new ticket: 43 characters that may stand in a URL.

        Raises:
            ValueError: it would live for longer than 30 s; or claims that are no JSON.
            ConfigurationError: the backend keeps nothing.
            BackendUnavailable: there is no ticket.
        """
        if not timedelta(0) < life <= MAX_TICKET_LIFE:
            raise ValueError(f"a ticket lives for at most {MAX_TICKET_LIFE.total_seconds():g} s, not {life!r}")
        ticket = secrets.token_urlsafe(32)
        kept = user if user.issued_at is not None else replace(user, issued_at=datetime.now(UTC))
        ttl_ms = max(1, round(life.total_seconds() * 1000))
        await self._keeper().keep(_key(ticket), _user.dump_json(kept), ttl_ms)
        return ticket

    async def redeem(self, ticket: str) -> User:
        """Whose ticket it is. Once: on whichever instance it comes first.

        Raises:
            AuthenticationFailed: it is none, or was used, or is too old.
            BackendUnavailable: nobody knows; it may be used now.
        """
        kept = await self._keeper().take(_key(ticket))
        if kept is None:
            raise AuthenticationFailed("no ticket, or one that was used, or is too old")
        return _user.validate_json(kept)

    def _keeper(self) -> KeepingBackend:
        if self._backend is None:
            raise ConfigurationError("this backend cannot keep tickets", "it needs the methods of KeepingBackend")
        return self._backend


def _key(ticket: str) -> str:
    return f"ticket:{blake2b(ticket.encode(), digest_size=32).hexdigest()}"
