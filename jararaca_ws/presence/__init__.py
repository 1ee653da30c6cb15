"""Who is in a room, across all instances: kept in a store that they share, and told to those who watch."""

from jararaca_ws.presence.settings import PresenceSettings
from jararaca_ws.presence.tracker import PresenceTracker, presence_store

__all__ = ["PresenceSettings", "PresenceTracker", "presence_store"]
