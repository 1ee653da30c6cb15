"""How often what one client sent was refused: a client that goes on and on is closed."""

from __future__ import annotations

import time

from jararaca_ws.errors import ErrorCategory, InvalidMessage, JararacaError
from jararaca_ws.settings import WebSocketSettings

__all__ = ["Refusals"]


class Refusals:
    """The refusals of one connection. Made with the first: most connections have none."""

    __slots__ = ("_counts", "_settings")

    def __init__(self, settings: WebSocketSettings) -> None:
        self._settings = settings
        # By the name of the setting that limits them: how many, and since when.
        self._counts: dict[str, tuple[int, float]] = {}

    def is_one_too_many(self, error: JararacaError) -> bool:
        """Count a refusal; whether its close code is due now."""
        if error.category is ErrorCategory.AUTHENTICATION:
            return True  # nothing else of this client will be handled
        limit = _limit(error)
        if limit is None:
            return False
        now = time.monotonic()
        count, since = self._counts.get(limit, (0, now))
        if now - since > self._settings.refusal_window.total_seconds():
            count, since = 0, now
        self._counts[limit] = (count + 1, since)
        maximum: int = getattr(self._settings, limit)
        return count + 1 >= maximum


def _limit(error: JararacaError) -> str | None:
    # What a handler refuses for its content (a name that is none, say) is not counted: it may be a user's mistake.
    if isinstance(error, InvalidMessage):
        return "max_invalid_messages"
    if error.category is ErrorCategory.AUTHORIZATION:
        return "max_denials"
    return "max_rate_limited" if error.category is ErrorCategory.RATE_LIMIT else None
