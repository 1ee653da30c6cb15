"""A chaos run from the command line; see scripts/chaos."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import Report, run
from tests.chaos.schedule import schedule
from tests.servers import ServerUnavailable


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Kill at random, under load, and judge.")
    parser.add_argument("--seed", type=int, help="of the faults and when they happen (default: a new one)")
    parser.add_argument("--minutes", type=float, default=1.0, help="of load and faults (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=12, help="that listen (default: %(default)s)")
    parser.add_argument("--without-rabbitmq", action="store_true", help="no RabbitMQ and no worker")
    parser.add_argument("--plan", action="store_true", help="print what would happen, and end")
    parser.add_argument("--directory", type=Path, help="new, for all servers and logs (default: a temporary one)")
    return parser.parse_args()


def _command(arguments: argparse.Namespace) -> str:
    options = " --without-rabbitmq" if arguments.without_rabbitmq else ""
    return (
        f"scripts/chaos --seed {arguments.seed} --minutes {arguments.minutes:g} --clients {arguments.clients}{options}"
    )


def _show(report: Report, command: str) -> None:
    for title, counts in (("faults", report.faults), ("ends of connections", report.closes)):
        print(f"{title}:")
        for what, count in sorted(counts.items()):
            print(f"{count:>8} {what}")
    print(report.verdict)
    print(f"again: {command}")


def main() -> int:
    """Exit code 0: all promises kept; 1: not; 3: a server is not installed."""
    arguments = _arguments()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1_000_000)
    duration_s = arguments.minutes * 60
    with_rabbitmq = not arguments.without_rabbitmq
    faults = schedule(arguments.seed, duration_s, with_rabbitmq=with_rabbitmq)
    print(f"seed {arguments.seed}, {len(faults)} faults in {duration_s:g} s")
    if arguments.plan:
        print(*faults, sep="\n")
        return 0
    begun_s = time.monotonic()
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="chaos-"))
    # Not an old one: its servers would remember what was sent then.
    directory.mkdir(parents=True, exist_ok=arguments.directory is None)
    print(f"logs: {directory}", flush=True)
    try:
        report = asyncio.run(
            run(
                faults,
                duration_s,
                directory,
                seed=arguments.seed,
                clients=arguments.clients,
                with_rabbitmq=with_rabbitmq,
                tell=lambda line: print(f"[{time.monotonic() - begun_s:6.1f}] {line}", flush=True),
            )
        )
    except ServerUnavailable as missing:
        print(missing, file=sys.stderr)
        return 3
    (directory / "events.txt").write_text("\n".join(map(str, report.events)))
    _show(report, _command(arguments))
    return 0 if report.verdict.is_good else 1


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
