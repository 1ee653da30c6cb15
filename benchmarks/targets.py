"""What we want to be true, and whether the figures of one run say so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Figures", "Verdict", "verdicts"]

_REDIS_PEERS = ("jararaca", "litestar-redis", "socketio-redis", "channels-redis")


class Figures:
    """The results of a run, by system and workload."""

    def __init__(self, runs: Iterable[dict[str, Any]]) -> None:
        self._runs = {(run["system"], run["workload"]): run["results"] for run in runs}

    def get(self, system: str, workload: str, key: str, **which: Any) -> Any:
        """The first of `get_all`.

        Raises:
            LookupError: there is none.
        """
        return self.get_all(system, workload, key, **which)[0]

    def get_all(self, system: str, workload: str, key: str, **which: Any) -> list[Any]:
        """The figure in every result of the run, in order; never empty.

        Raises:
            LookupError: there is none.
        """
        results = self._runs.get((system, workload), ())
        found = [result[key] for result in results if all(result.get(name) == want for name, want in which.items())]
        if not found:
            raise LookupError(f"{system}, {workload}")
        return found

    def cpu(self, system: str, workload: str, **which: Any) -> float:
        value: float = self.get(system, workload, "cpu_us", **which)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One line of the table. ``measured`` is None where the run has no figures for it."""

    what: str
    wanted: str
    measured: float | None
    unit: str
    met: bool | None


def verdicts(figures: Figures) -> list[Verdict]:
    return [_verdict(figures, *target) for target in _targets()]


def _verdict(
    figures: Figures, what: str, limit: float, at_least: bool, unit: str, measure: Callable[[Figures], float]
) -> Verdict:
    wanted = f"{'>=' if at_least else '<='} {limit:g}{unit}"
    try:
        measured = measure(figures)
    except LookupError:
        return Verdict(what=what, wanted=wanted, measured=None, unit=unit, met=None)
    met = measured >= limit if at_least else measured <= limit
    return Verdict(what=what, wanted=wanted, measured=measured, unit=unit, met=met)


def _pair(found: list[float]) -> tuple[float, float]:
    if len(found) != 2:
        raise LookupError("the second half of the workload failed")
    return found[0], found[1]


def _targets() -> list[tuple[str, float, bool, str, Callable[[Figures], float]]]:
    def best_redis_peer(figures: Figures, burst: int) -> float:
        found = []
        for peer in _REDIS_PEERS:
            try:
                found.append(figures.cpu(peer, "burst", burst=burst))
            except LookupError:
                continue
        if not found:
            raise LookupError("no peer with Redis")
        return min(found) / figures.cpu("ours-redis", "burst", burst=burst)

    def stalled(figures: Figures, system: str) -> float:
        without, with_one = _pair(figures.get_all(system, "stalled", "p99_ms"))
        return with_one / without

    def rooms(figures: Figures, system: str) -> float:
        few, many = _pair(figures.get_all(system, "rooms", "cpu_us"))
        return many / few

    def lost(figures: Figures) -> float:
        first, second = figures.get("ours", "idle", "rss_after")
        lost_kb: float = (second - first) / 1024 / figures.get("ours", "idle", "then")
        return lost_kb

    def publish(figures: Figures, workload: str) -> float:
        ours, theirs = (figures.get(name, workload, "sends_s") for name in ("ours-redis", "jararaca"))
        ratio: float = ours / theirs
        return ratio

    def inbound(figures: Figures, system: str) -> float:
        return figures.cpu(system, "inbound") / figures.cpu("starlette", "inbound")

    return [
        (
            "One message per tick, 500 connections, plain: CPU against picows, the floor",
            1.25,
            False,
            "x",
            lambda f: f.cpu("ours", "fanout-500") / f.cpu("picows", "fanout-500"),
        ),
        (
            "... how much faster than the loop over send_text",
            1.6,
            True,
            "x",
            lambda f: f.cpu("starlette", "fanout-500") / f.cpu("ours", "fanout-500"),
        ),
        (
            "... how much faster than Jararaca (both through Redis)",
            2,
            True,
            "x",
            lambda f: f.cpu("jararaca", "fanout-500") / f.cpu("ours-redis", "fanout-500"),
        ),
        (
            "Compression offered: how much faster than the loop over send_text",
            4,
            True,
            "x",
            lambda f: f.cpu("starlette", "deflate") / f.cpu("ours", "deflate"),
        ),
        (
            "... how much faster than Jararaca (both through Redis)",
            4,
            True,
            "x",
            lambda f: f.cpu("jararaca", "deflate") / f.cpu("ours-redis", "deflate"),
        ),
        (
            "... the same where ours compresses as well",
            4,
            True,
            "x",
            lambda f: f.cpu("starlette", "deflate") / f.cpu("ours-deflate", "deflate"),
        ),
        ("... memory per connection", 36, False, " kB", lambda f: f.get("ours", "deflate", "memory_kb")),
        ("... where ours compresses", 36, False, " kB", lambda f: f.get("ours-deflate", "deflate", "memory_kb")),
        (
            "Burst of 10 through Redis: how much faster than the best Python peer with Redis",
            8,
            True,
            "x",
            lambda f: best_redis_peer(f, 10),
        ),
        ("Burst of 50 through Redis: the same", 8, True, "x", lambda f: best_redis_peer(f, 50)),
        ("Publishing, 100 senders: sends per second against Jararaca", 4, True, "x", lambda f: publish(f, "publish")),
        ("... with one member of the room here", 4, True, "x", lambda f: publish(f, "publish-local")),
        ("One stalled reader: p99 of the others against none", 1.2, False, "x", lambda f: stalled(f, "ours")),
        ("... through Redis", 1.2, False, "x", lambda f: stalled(f, "ours-redis")),
        (
            "10,000 idle connections: memory against plain FastAPI endpoints",
            1.2,
            False,
            "x",
            lambda f: f.get("ours", "idle", "memory_kb") / f.get("starlette", "idle", "memory_kb"),
        ),
        ("... memory that 2,500 more left behind, per connection", 1, False, " kB", lost),
        ("Rooms: CPU of a send beside 100,000 other rooms against 10", 1.3, False, "x", lambda f: rooms(f, "ours")),
        ("... through Redis", 1.3, False, "x", lambda f: rooms(f, "ours-redis")),
        ("A message that a client sends: CPU against a bare echo", 2, False, "x", lambda f: inbound(f, "ours")),
        ("... under plain uvicorn", 2, False, "x", lambda f: inbound(f, "ours-uvicorn")),
    ]
