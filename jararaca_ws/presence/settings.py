"""How presence is kept, and what may be the metadata of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from jararaca_ws.errors import BadMetadata, ConfigurationError
from jararaca_ws.wire.protocol import is_finite

__all__ = ["PresenceSettings"]

_metadata: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceSettings:
    """How presence is kept. The same for all instances of an application.

    Attributes:
        ttl: within it the members of an instance that was killed are shown no more, nor are watchers left untold.
        grace: how long an identity whose last connection has left still counts as there.
        window: watchers of a room are told at most once in this time.
        threshold: with more identities than this in a room its watchers are told only how many.
        max_metadata_bytes: of one connection, as JSON.
    """

    ttl: timedelta = timedelta(seconds=30)
    grace: timedelta = timedelta(seconds=15)
    window: timedelta = timedelta(seconds=1)
    threshold: int = 500
    max_metadata_bytes: int = 1024

    def __post_init__(self) -> None:
        for name in ("threshold", "max_metadata_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a whole number, at least 0")
        for name in ("ttl", "grace", "window"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < timedelta(0) or (name == "ttl" and not value):
                raise ConfigurationError(f"{name}={value!r} cannot be", "give a timedelta; only ttl may not be zero")

    @property
    def life_s(self) -> float:
        """For how many seconds a sign of life counts; the rest of the TTL is for the watchers to notice its end."""
        return self.ttl.total_seconds() * 2 / 3

    @property
    def refresh_s(self) -> float:
        """Every so many seconds watched rooms are read, changed or not."""
        return self.ttl.total_seconds() / 3

    def check(self, metadata: dict[str, Any]) -> dict[str, JsonValue]:
        """A copy of what may be the metadata of a connection.

        Raises:
            BadMetadata: it may not.
        """
        try:
            checked = _metadata.validate_python(metadata, strict=True)
            size = len(to_json(checked))
        except (ValidationError, ValueError):  # their texts hold the metadata
            raise BadMetadata("it is not an object of JSON") from None
        if not is_finite(checked):
            raise BadMetadata("it holds NaN or infinity")
        if size > self.max_metadata_bytes:
            raise BadMetadata(f"it has {size} bytes as JSON, of {self.max_metadata_bytes} (max_metadata_bytes)")
        return checked
