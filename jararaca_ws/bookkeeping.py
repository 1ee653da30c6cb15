"""What one instance has counted since it started, and what is there now."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

from jararaca_ws.delivering import Counters, LocalDelivery
from jararaca_ws.figures import InstanceStatistics, Tally
from jararaca_ws.rooms import is_internal, is_user
from jararaca_ws.sockets.flushing import TickFlusher

__all__ = ["Bookkeeping"]


class Bookkeeping:
    """The figures of one instance, from all that count.

    Attributes:
        tally: what its connections count together.
    """

    def __init__(self, instance_id: str, delivery: LocalDelivery, flusher: TickFlusher) -> None:
        self.tally = Tally()
        self._instance_id = instance_id
        self._delivery = delivery
        self._flusher = flusher
        self._started_at = time.monotonic()

    def start(self) -> None:
        """The instance is up from now on; what was counted stays."""
        self._started_at = time.monotonic()

    @property
    def counters(self) -> Counters:
        """What this instance has done since it started."""
        counters, flusher = self._delivery.counters, self._flusher
        return replace(counters, delivered=flusher.delivered, conflated=counters.conflated + flusher.conflated)

    def statistics(self) -> InstanceStatistics:
        """What is here now, and what this instance has done since it started."""
        rooms = self._delivery.rooms
        counters = asdict(self.counters)
        return InstanceStatistics(
            instance_id=self._instance_id,
            uptime_s=time.monotonic() - self._started_at,
            connections=len(self._delivery.connections),
            rooms=sum(not is_internal(room) for room in rooms),
            users=sum(map(is_user, rooms)),
            messages_in=self.tally.messages_in,
            bytes_in=self.tally.bytes_in,
            messages_out=counters.pop("delivered"),
            bytes_out=self._flusher.bytes_out,
            errors=dict(self.tally.errors),
            **counters,
        )
