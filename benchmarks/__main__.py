"""The command line of the benchmarks; `scripts/bench` calls it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import session
from benchmarks.picture import svg
from benchmarks.report import markdown
from benchmarks.systems import ROOT, SYSTEMS, System, Unavailable
from benchmarks.workloads import WORKLOADS, Workload
from tests.servers import RedisServer, ServerUnavailable

_QUICK_SYSTEMS = ("ours", "ours-redis", "ours-uvicorn", "starlette")


def main() -> int:
    arguments = _arguments()
    # Without this a SIGTERM would end us at once and leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    systems = [system for system in SYSTEMS if system.name in arguments.only]
    workloads = [workload for workload in WORKLOADS if workload.name in arguments.workload]
    run: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["scripts/bench", *arguments.said]),
        "quick": arguments.quick,
        "commit": _commit(),
        "machine": _machine(),
        "versions": {},
        "runs": [],
    }
    with tempfile.TemporaryDirectory(prefix="jararaca-bench-") as directory, _redis(Path(directory)) as redis:
        missing = _install(systems, redis, run["versions"])
        started = time.monotonic()
        # All systems at one workload, then at the next: what is compared is measured within seconds of each other.
        for workload in workloads:
            for system in filter(workload.includes, systems):
                run["runs"].append(
                    _measure(
                        system, workload, quick=arguments.quick, redis=redis, logs=Path(directory), missing=missing
                    )
                )
    run["took_s"] = time.monotonic() - started
    run["machine"]["load_after"] = os.getloadavg()[0]
    _write(run, workloads, systems, arguments)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure jararaca_ws beside its peers; makes what it needs in .venv, and takes some minutes.",
        epilog="A run of everything writes benchmarks/RESULTS.md, benchmarks/results.json and docs/benchmark.svg; "
        "one with --quick, --only or --workload writes only to --output.",
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run in seconds, whose figures mean nothing")
    parser.add_argument("--only", type=_names("system", [system.name for system in SYSTEMS]), metavar="SYSTEM,...")
    parser.add_argument("--workload", type=_names("workload", [work.name for work in WORKLOADS]), metavar="NAME,...")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where RESULTS.md, results.json and the picture go")
    arguments = parser.parse_args()
    # Without --output, which changes no figure and names a place on this machine.
    arguments.said = [
        *(["--quick"] if arguments.quick else []),
        *(["--only", ",".join(arguments.only)] if arguments.only else []),
        *(["--workload", ",".join(arguments.workload)] if arguments.workload else []),
    ]
    everything = not arguments.said
    arguments.only = arguments.only or (_QUICK_SYSTEMS if arguments.quick else [system.name for system in SYSTEMS])
    arguments.workload = arguments.workload or [workload.name for workload in WORKLOADS]
    arguments.targets = _files(arguments.output, everything)
    return arguments


def _names(what: str, known: list[str]) -> Any:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is no {what}; there are {', '.join(known)}")
        return chosen

    return names


def _files(output: Path | None, everything: bool) -> tuple[Path, Path, Path] | None:
    """(RESULTS.md, results.json, the picture); None where nothing is written."""
    if output is not None:
        return output / "RESULTS.md", output / "results.json", output / "benchmark.svg"
    if everything:
        benchmarks = ROOT / "benchmarks"
        return benchmarks / "RESULTS.md", benchmarks / "results.json", ROOT / "docs" / "benchmark.svg"
    return None


@contextmanager
def _redis(directory: Path) -> Iterator[RedisServer | None]:
    """A private one on the load generator's core; None where redis-server is not installed."""
    try:
        redis = RedisServer(directory / "redis")
    except ServerUnavailable:
        yield None
        return
    try:
        with session.pinned(session.cores()[1]):
            redis.start()
        yield redis
    finally:
        redis.stop()


def _install(systems: list[System], redis: RedisServer | None, versions: dict[str, Any]) -> dict[str, str]:
    """Which of them cannot be measured, and why."""
    missing: dict[str, str] = {}
    for system in systems:
        try:
            system.install()
            if system.redis and redis is None:
                raise Unavailable("redis-server is not installed")
            versions[system.name] = system.installed_versions()
        except Unavailable as reason:
            _say(f"{system.name}: {reason}")
            missing[system.name] = str(reason)
    return missing


def _measure(
    system: System, workload: Workload, *, quick: bool, redis: RedisServer | None, logs: Path, missing: dict[str, str]
) -> dict[str, Any]:
    why_not = missing.get(system.name) or workload.absent(system) or dict(system.too_slow_for).get(workload.name)
    if why_not:
        found: dict[str, Any] = {"results": [], "failed": why_not}
    else:
        started = time.monotonic()
        found = session.run(system, workload, quick=quick, redis=redis, logs=logs)
        found["took_s"] = time.monotonic() - started
        _say(f"{workload.name:14} {system.name:15} {found['took_s']:5.1f} s   {_summary(found)}")
    return {"system": system.name, "workload": workload.name, **found}


def _summary(found: dict[str, Any]) -> str:
    figures = [
        f"{result['cpu_us']:.2f} us" if "cpu_us" in result else f"{result['memory_kb']:.1f} kB"
        for result in found["results"]
    ]
    return ", ".join([*figures, *([f"({found['failed']})"] if found["failed"] else [])])


def _commit() -> str:
    """With ``-dirty`` where files differ from it; "unknown" outside of a checkout."""
    try:
        git = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
    }


def _write(
    run: dict[str, Any], workloads: list[Workload], systems: list[System], arguments: argparse.Namespace
) -> None:
    notes = ROOT / "benchmarks" / "NOTES.md"
    text = markdown(run, workloads, systems, notes.read_text() if notes.is_file() else "")
    print(text)
    if arguments.targets is None:
        return
    results, raw, picture = arguments.targets
    for path, content in ((results, text), (raw, json.dumps(run, indent=1) + "\n"), (picture, svg(run, systems))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        _say(f"wrote {path}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
