"""How well the parts of a process are. `interceptors.health` tells it over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Health", "ReportsHealth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How well one part is, at this moment.

    Attributes:
        name: of the part: ``redis``, say.
        healthy: whether it can do its work.
        reason: why not; "" where it can. Whoever may ask reads it, so it names no host and no user.
    """

    name: str
    healthy: bool = True
    reason: str = ""


@runtime_checkable
class ReportsHealth(Protocol):
    """A backend, a bus or an interceptor that knows how well it is."""

    def health(self) -> Sequence[Health]:
        """From what is known already: it is asked every few seconds, and does not wait."""
        ...
