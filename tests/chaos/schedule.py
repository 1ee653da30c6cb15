"""What goes wrong and when: a pure function of the seed."""

from __future__ import annotations

import random
from enum import Enum
from typing import NamedTuple

__all__ = ["INSTANCES", "Fault", "What", "schedule"]

INSTANCES = ("one", "two")

_FIRST_S = 1.5
_PAUSE_S = (0.2, 2.5)
"""Between the beginnings of two faults."""
_REST_S = 1.0
"""Before the next fault of the same target."""


class What(Enum):
    KILL = "SIGKILL"
    TERMINATE = "SIGTERM"
    FREEZE = "SIGSTOP"
    DISCONNECT_SUBSCRIBERS = "CLIENT KILL TYPE pubsub"
    DISCONNECT_OTHERS = "CLIENT KILL TYPE normal"
    CUT = "link cut"
    RESET = "link reset"
    BLACKHOLE = "link silent"
    DROP_REPLIES = "replies lost"


class Fault(NamedTuple):
    """One thing that goes wrong: what, with whom, when, and after how long it is repaired."""

    at_s: float
    what: What
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.what.value:<24} {self.target:<18} for {self.for_s:.2f} s"


_LONGEST_S = {
    What.KILL: 2.5,
    What.TERMINATE: 2.5,
    What.FREEZE: 6.0,
    What.BLACKHOLE: 6.0,
    What.DROP_REPLIES: 2.0,
}
"""Of those that last."""

_PROCESS = (What.KILL, What.KILL, What.TERMINATE, What.FREEZE)
_REDIS = (*_PROCESS, What.DISCONNECT_SUBSCRIBERS, What.DISCONNECT_OTHERS)
_RABBITMQ = (What.KILL, What.FREEZE)
_LINK = (What.CUT, What.RESET, What.BLACKHOLE, What.DROP_REPLIES)


def schedule(seed: int, duration_s: float, *, with_rabbitmq: bool) -> list[Fault]:
    """The faults of a run; all of them are repaired before it ends."""
    rng = random.Random(seed)
    targets = _targets(with_rabbitmq)
    free_at = dict.fromkeys(targets, 0.0)
    faults: list[Fault] = []
    at_s = _FIRST_S
    while at_s < duration_s:
        free = [target for target in targets if free_at[target] <= at_s]
        if free:
            target = rng.choice(free)
            what = rng.choice(targets[target])
            for_s = round(rng.uniform(0.1, _LONGEST_S[what]), 2) if what in _LONGEST_S else 0.0
            if at_s + for_s <= duration_s:
                faults.append(Fault(round(at_s, 2), what, target, for_s))
                free_at[target] = at_s + for_s + _REST_S
        at_s += rng.uniform(*_PAUSE_S)
    return faults


def _targets(with_rabbitmq: bool) -> dict[str, tuple[What, ...]]:
    """Who can fail, and in which ways."""
    targets: dict[str, tuple[What, ...]] = {"redis": _REDIS}
    for instance in INSTANCES:
        targets |= {instance: _PROCESS, f"{instance}-redis": _LINK, f"clients-{instance}": _LINK}
    if with_rabbitmq:
        targets |= {"worker": _PROCESS, "rabbitmq": _RABBITMQ, "worker-redis": _LINK, "worker-rabbitmq": _LINK}
        targets |= {f"{instance}-rabbitmq": _LINK for instance in INSTANCES}
    return targets
