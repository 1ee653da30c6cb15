"""The workloads: what is done, by how many, and to which systems it applies."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.systems import System

__all__ = ["WORKLOADS", "Workload"]


def _everybody(system: System) -> str | None:
    return None


def _with_rooms(system: System) -> str | None:
    return "it has no rooms: they are a dict of the benchmark's" if system.own_rooms else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One row of the plan.

    Attributes:
        job: fields of load.Job.
        quick: those that are different in a smoke run.
        absent: why a system cannot do it; None where it can.
        peers: with which of its backends a peer is measured that has one of memory and one of Redis.
        through_redis: only systems whose messages go through Redis.
        systems: only these; empty: all.
        less, less_for: fields of load.Job that are different for these systems, on which no target depends: what they
            cost shows with less work.
    """

    name: str
    title: str
    about: str
    kind: str
    job: dict[str, Any]
    quick: dict[str, Any]
    absent: Callable[[System], str | None] = _everybody
    peers: Literal["memory", "redis", "both"] = "both"
    through_redis: bool = False
    systems: tuple[str, ...] = ()
    less: dict[str, Any] = field(default_factory=dict)
    less_for: tuple[str, ...] = ()

    def includes(self, system: System) -> bool:
        """Whether it has a line in the table, be it a dash."""
        if system.only and self.name not in system.only:
            return False
        if self.systems and system.name not in self.systems:
            return False
        if self.through_redis:
            return system.redis
        if self.peers == "both" or system.is_ours or not system.both_backends:
            return True
        return system.redis == (self.peers == "redis")

    def job_for(self, system: System, *, quick: bool) -> dict[str, Any]:
        less = self.less if system.name in self.less_for else {}
        job = {**self.job, **less, **({"patience_s": 3.0, **self.quick} if quick else {})}
        job["connections"] = min(job["connections"], _allowed_connections(job.get("others", 0)))
        if "then" in job and not system.is_ours:
            job["then"] = 0
        return {"kind": self.kind, "path": system.path, "after_upgrade": system.after_upgrade, **job}


def _allowed_connections(others: int) -> int:
    """Each process has one descriptor per connection, and some hundred of its own."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - others - 500


WORKLOADS = [
    Workload(
        name="fanout-500",
        title="Fan-out, 500 connections, one message per tick",
        about="Plain: no client offers compression.",
        kind="fanout",
        job={"connections": 500, "seconds": 1.0},
        quick={"connections": 20, "seconds": 0.1, "max_rounds": 10},
    ),
    Workload(
        name="fanout-5000",
        title="Fan-out, 5,000 connections, one message per tick",
        about="The same with ten times as many.",
        kind="fanout",
        job={"connections": 5000, "seconds": 1.0},
        quick={"connections": 40, "seconds": 0.1, "max_rounds": 10},
        peers="memory",
    ),
    Workload(
        name="burst",
        title="Burst, 500 connections, 10 and 50 messages per tick",
        about="Where the backend is Redis, a tick's messages are sent as by that many concurrent requests.",
        kind="fanout",
        job={"connections": 500, "bursts": [10, 50], "seconds": 0.6},
        quick={"connections": 20, "seconds": 0.1, "max_rounds": 5},
        less={"bursts": [10]},
        less_for=("litestar", "socketio", "channels", "channels-redis"),
    ),
    Workload(
        name="deflate",
        title="Compression offered, 500 connections, one message per tick",
        about="Every client offers permessage-deflate, as browsers do; the server takes it or not, as by its defaults.",
        kind="fanout",
        job={"connections": 500, "deflate": True, "seconds": 1.0},
        quick={"connections": 20, "seconds": 0.1, "max_rounds": 10},
        peers="memory",
    ),
    Workload(
        name="solo-rooms",
        title="500 rooms with one member each",
        about="One tick sends one message to each room: what per-user notifications cost.",
        kind="fanout",
        job={"connections": 500, "rooms": 500, "seconds": 1.0},
        quick={"connections": 20, "rooms": 20, "seconds": 0.1, "max_rounds": 10},
        peers="redis",
    ),
    Workload(
        name="publish",
        title="Publishing, 100 concurrent senders, nobody of the room here",
        about="Each sender awaits its send before the next. The room's members would be on another instance.",
        kind="publish",
        job={"connections": 0, "senders": 100, "each": 100},
        quick={"senders": 5, "each": 4},
        through_redis=True,
    ),
    Workload(
        name="publish-local",
        title="Publishing, 100 concurrent senders, one member here",
        about="The same with one member of the room on this instance, so every message also comes back through Redis.",
        kind="publish",
        job={"connections": 1, "senders": 100, "each": 100},
        quick={"senders": 5, "each": 4},
        through_redis=True,
    ),
    Workload(
        name="stalled",
        title="One stalled reader among 500",
        about="Messages of 16 KiB, so that what the kernel buffers for the stalled one is soon full. "
        "The latency is that of the 500 others.",
        kind="stalled",
        job={"connections": 500, "size": 16384, "seconds": 0.8, "patience_s": 3.0},
        quick={"connections": 20, "size": 16384, "seconds": 0.1, "max_rounds": 10},
        peers="memory",
    ),
    Workload(
        name="idle",
        title="10,000 idle connections",
        about="In one room, no message yet; 2,500 where no target asks for more. After ours have "
        "gone, 2,500 more come and go: what stays after them and did not before is lost.",
        kind="idle",
        job={"connections": 10_000, "then": 2500},
        quick={"connections": 50, "then": 50},
        less={"connections": 2500},
        less_for=("ours-redis", "jararaca", "litestar", "socketio", "channels", "picows", "node-ws"),
        peers="memory",
    ),
    Workload(
        name="rooms",
        title="Cost of a send against the number of other rooms",
        about="A room of 10 members; 1,000 other connections sit in 10 rooms, then in 100,000; those of the peers in "
        "10,000.",
        kind="rooms",
        job={"connections": 10, "others": 1000, "extra": 99, "each": 500},
        quick={"connections": 5, "others": 20, "extra": 9, "each": 20},
        less={"extra": 9},
        less_for=("jararaca", "litestar", "socketio"),
        absent=_with_rooms,
        peers="memory",
    ),
    Workload(
        name="inbound",
        title="What clients send, 50 connections, one message each at a time",
        about="All send when all have their replies. Ours validates each message, calls its handler in a unit of work "
        "of its own, and replies; the bare starlette endpoint sends the text back as it came, without parsing it.",
        kind="inbound",
        job={"connections": 50, "seconds": 1.0, "path": "/inbound?room={room}"},
        quick={"connections": 5, "seconds": 0.1, "max_rounds": 10},
        systems=("ours", "ours-uvicorn", "starlette"),
    ),
]
