"""RESULTS.md: one table per workload, the targets, and the maintainer's notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.systems import System
from benchmarks.targets import Figures, Verdict, verdicts
from benchmarks.workloads import Workload

__all__ = ["markdown"]

_INTRODUCTION = """\
Written by `{command}` on {date}, in {took_s:.0f} s; do not edit. The raw figures are in `results.json`.

One server process on one core, the load generator (and Redis, where there is one) on the other. A **round** is one tick
of the server: it sends the tick's messages to the room, the load generator counts frames until all have come, and only
then asks for the next round. Messages have 128 bytes on the wire, the system's own envelope included, where nothing
else is said.

- **CPU, us**: CPU time of the server process (Redis not included) per frame delivered, or per send; the median of five
  parts of the run. It says what a core can do. A busy machine raises it too, if less than the times by the clock.
- **ours = 1**: the same, divided by ours with the same kind of backend (memory or Redis). More than 1: slower.
- **deliveries/s, p50, p99, max**: by the clock, from the load generator's order to the arrival of each frame, in
  rounds. The wait for the last frame of every round is in it, so it is less than what a busy core delivers.
- **kB**: resident memory of the server per connection.
- **load**: how busy the load generator was. Near 100 % it is what limits the deliveries/s and the latency of that line;
  the CPU figure does not depend on it.
"""


_SMOKE = "**A smoke run:** few connections, few rounds, whatever the titles say. The figures mean nothing."


def markdown(run: dict[str, Any], workloads: list[Workload], systems: list[System], notes: str) -> str:
    figures = Figures(run["runs"])
    runs = {(found["system"], found["workload"]): found for found in run["runs"]}
    judged = _SMOKE if run["quick"] else _targets(verdicts(figures))
    parts = ["# Benchmarks", _INTRODUCTION.format(**run), _machine(run), judged]
    for workload in workloads:
        parts += [f"## {workload.title}", workload.about]
        parts.append(_table(workload, systems, runs))
    parts += ["## Versions", _versions(run), notes.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(run: dict[str, Any]) -> str:
    machine = run["machine"]
    return (
        f"Commit of jararaca_ws: {run['commit']}. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}. "
        f"Load average {machine['load_before']:.2f} before (what others did), {machine['load_after']:.2f} after."
    )


def _targets(found: list[Verdict]) -> str:
    rows = [[v.what, v.wanted, _measured(v), _judgement(v)] for v in found]
    return "## Targets\n\n" + _grid(["what", "target", "measured", ""], rows)


def _measured(verdict: Verdict) -> str:
    return "-" if verdict.measured is None else f"{verdict.measured:.2f}{verdict.unit}"


def _judgement(verdict: Verdict) -> str:
    if verdict.met is None:
        return "not measured"
    return "met" if verdict.met else "**missed**"


# --- one table per workload -------------------------------------------------------------------------------------------

Row = list[str]
Column = tuple[str, Callable[[dict[str, Any], dict[str, Any]], str]]


def _number(key: str, digits: int) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    return lambda result, _: f"{result[key]:,.{digits}f}" if key in result else "-"


def _times_ours(result: dict[str, Any], ours: dict[str, Any]) -> str:
    return f"{result['cpu_us'] / ours['cpu_us']:.2f}" if ours else "-"


def _lost(result: dict[str, Any]) -> str:
    first, *others = result["rss_after"]
    return f"{(others[0] - first) / 1024 / result['then']:.2f}" if others else ""


_LATENCY: list[Column] = [
    ("p50, ms", _number("p50_ms", 2)),
    ("p99, ms", _number("p99_ms", 2)),
    ("max, ms", _number("max_ms", 2)),
]
_CPU: list[Column] = [("CPU, us", _number("cpu_us", 2)), ("ours = 1", _times_ours)]
_ROUNDS: list[Column] = [
    *_CPU,
    ("deliveries/s", _number("deliveries_s", 0)),
    *_LATENCY,
    ("kB", _number("memory_kb", 1)),
    ("load", lambda result, _: f"{result['load_cpu_share']:.0%}"),
]
_COLUMNS: dict[str, list[Column]] = {
    "fanout": _ROUNDS,
    "stalled": [column for column in _ROUNDS if column[0] != "kB"],
    "publish": [
        *_CPU,
        ("sends/s", _number("sends_s", 0)),
    ],
    "rooms": _CPU,
    "inbound": [*_CPU, ("messages/s", _number("deliveries_s", 0)), *_LATENCY],
    "idle": [
        ("connections", _number("connections", 0)),
        ("kB", _number("memory_kb", 1)),
        ("ours = 1", lambda result, ours: f"{result['memory_kb'] / ours['memory_kb']:.2f}" if ours else "-"),
        ("lost, kB per connection", lambda result, _: _lost(result)),
    ],
}
_VARIANTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "stalled": lambda result: "one stalled" if result["stalled"] else "none stalled",
    "rooms": lambda result: f"beside {result['other_rooms']:,} rooms",
    "burst": lambda result: f"{result['burst']} per tick",
    "deflate": lambda result: "compressed" if result["extension"] else "declined: plain",
}


def _table(workload: Workload, systems: list[System], runs: dict[tuple[str, str], dict[str, Any]]) -> str:
    columns = _COLUMNS[workload.kind]
    variant = _VARIANTS.get(workload.kind) or _VARIANTS.get(workload.name)
    rows: list[tuple[int, Row]] = []
    reasons: list[str] = []
    for system in systems:
        found = runs.get((system.name, workload.name))
        if found is None:
            continue
        for position, result in enumerate(found["results"]):
            ours = _ours(runs, workload, system, position)
            kind = [variant(result)] if variant else []
            cells = [system.title, *kind, *(cell(result, ours) for _, cell in columns)]
            rows.append((position, cells))
        if found["failed"] is not None:
            reasons.append(f"- {system.title}: {found['failed']}")
            rows.append((len(found["results"]), [system.title, *["-"] * (len(columns) + bool(variant))]))
    header = ["system", *([""] if variant else []), *(title for title, _ in columns)]
    # What is compared stands together: first the first results of all systems, then the second ones.
    table = _grid(header, [cells for _, cells in sorted(rows, key=lambda row: row[0])])
    return "\n\n".join([table, *(["Why there is a dash:\n\n" + "\n".join(reasons)] if reasons else [])])


def _ours(
    runs: dict[tuple[str, str], dict[str, Any]], workload: Workload, system: System, position: int
) -> dict[str, Any]:
    """Our result for the same work and the same kind of backend; empty where there is none."""
    results = runs.get(("ours-redis" if system.redis else "ours", workload.name), {"results": []})["results"]
    return results[position] if position < len(results) else {}


def _versions(run: dict[str, Any]) -> str:
    rows = [[name, ", ".join(f"{k} {v}" for k, v in versions.items())] for name, versions in run["versions"].items()]
    return _grid(["system", "versions"], rows)


def _grid(header: Row, rows: list[Row]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
