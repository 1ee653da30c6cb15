"""How presence is kept, and what may be the metadata of a connection."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json
from pydantic_settings import SettingsConfigDict

from jararaca_ws.configuring import Amount, Duration, Settings
from jararaca_ws.errors import BadMetadata
from jararaca_ws.wire.protocol import is_finite

__all__ = ["PresenceSettings"]

_metadata: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class PresenceSettings(Settings):
    """How presence is kept. The same for all instances of an application; documented in ``docs/settings.md``."""

    model_config = SettingsConfigDict(env_prefix="JARARACA_WS_PRESENCE_")

    ttl: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=30)
    """Within it the members of an instance that was killed are shown no more, nor are watchers left untold."""

    grace: Duration = timedelta(seconds=15)
    """How long an identity whose last connection has left still counts as there."""

    window: Duration = timedelta(seconds=1)
    """Watchers of a room are told at most once in this time."""

    threshold: Amount = 500
    """With more identities than this in a room its watchers are told only how many."""

    max_metadata_bytes: Amount = 1024
    """Of one connection, as JSON."""

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
