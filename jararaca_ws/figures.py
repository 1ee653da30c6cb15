"""What an instance counts, and how its figures are told."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Figures", "InstanceStatistics", "Statistics", "Tally", "total_of"]


class Tally:
    """What the connections of one instance count together.

    Attributes:
        messages_in, bytes_in: read from clients.
        errors: that clients were told, or closed with, by code.
    """

    __slots__ = ("bytes_in", "errors", "messages_in")

    def __init__(self) -> None:
        self.messages_in = 0
        self.bytes_in = 0
        self.errors: Counter[str] = Counter()


class Figures(BaseModel):
    """What is there now, and what has happened since the start.

    Attributes:
        connections: open, or about to be.
        rooms, users: that have a connection; in a total, those on two instances count twice.
        messages_in, bytes_in: read from clients, refused ones included.
        messages_out, bytes_out: written to clients, or put into their outbound queues. With our server the bytes are
            those on the wire, compressed and with the heads of frames; else, and while a client reads slowly, those of
            the messages.
        sent: messages given to the backend and accepted.
        errors: that clients were told, or closed with, by code.

    The others are those of `Counters`.
    """

    # Another instance may be of another version: what it does not say is 0, what we do not know is left out.
    model_config = ConfigDict(frozen=True, extra="ignore")

    connections: int = 0
    rooms: int = 0
    users: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    sent: int = 0
    overflows: int = 0
    gaps: int = 0
    dropped: int = 0
    conflated: int = 0
    evicted: int = 0
    healed: int = 0
    insufficient: int = 0
    recovered: int = 0
    not_recovered: int = 0
    errors: dict[str, int] = Field(default_factory=dict)


class InstanceStatistics(Figures):
    """Attributes:
    uptime_s: since the manager was started.
    """

    instance_id: str
    uptime_s: float


class Statistics(BaseModel):
    """Attributes:
    total: of the instances that have answered.
    instances: the one that was asked first, then the others, by their ids.
    missing: how many are there and have not answered in time; None where the backend cannot say how many there are.
    """

    model_config = ConfigDict(frozen=True)

    total: Figures
    instances: tuple[InstanceStatistics, ...]
    missing: int | None


def total_of(instances: tuple[InstanceStatistics, ...]) -> Figures:
    """The sum of all."""
    errors: Counter[str] = Counter()
    for one in instances:
        errors.update(one.errors)
    numbers = {name: sum(getattr(one, name) for one in instances) for name in Figures.model_fields if name != "errors"}
    return Figures(**numbers, errors=dict(errors))
