"""Who a client is, and what it shows to prove it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

__all__ = ["PresentedToken", "User"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a connection belongs to, as ``authenticate=`` says; `WebSocketConnection.user` has it.

    Attributes:
        id: what `send_to_user` and the others call this user; 1 to 255 bytes without control characters.
        claims: what else is known. Nobody but the application reads them.
        expires_at: until when the token counts, with a time zone; None: as long as the connection lasts.
        issued_at: since when, with a time zone. `revoke` of the user lets newer tokens in again; None: it lets none.
        token_id: names the token, so that it alone can be revoked; None where it has no name.

    Raises:
        ValueError: a time without a time zone.
    """

    id: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    expires_at: datetime | None = None
    issued_at: datetime | None = None
    token_id: str | None = None

    def __post_init__(self) -> None:
        for name in ("expires_at", "issued_at"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.utcoffset() is None:
                raise ValueError(f"User.{name} has no time zone: give one, datetime.now(UTC) has it")


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """What a client shows, not checked yet: the parameter of ``authenticate=``.

    Attributes:
        value: the token, 1 to 8,192 characters. Not in its ``repr``: it belongs in no log.
        source: where it was.
    """

    value: str = field(repr=False)
    source: Literal["header", "cookie", "subprotocol", "message", "ticket"]
