"""The kinds of work that a load generator can do, each a function of its clients."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.frames import masked
from benchmarks.load import Failed, Job, Load

__all__ = ["run"]

_WARM_UP_CONNECTIONS = 50
_SEGMENTS = 5
_FILL = 2_400_000
"""Bytes; Linux takes up to about 2.8 MB for a connection that is not read from, before the server notices."""


def run(job: Job) -> dict[str, Any]:
    """Do the job. ``failed`` is None, or why there are fewer results than asked for."""
    load = Load(job)
    results: list[dict[str, Any]] = []
    failed = None
    try:
        _KINDS[job.kind](load, results)
    except Failed as reason:
        failed = str(reason)
    return {"results": results, "failed": failed}


def _warmed_up(load: Load) -> float:
    """Resident memory after a few connections have come and gone."""
    few = load.connect(["warm-up"] * min(_WARM_UP_CONNECTIONS, load.job.connections))
    load.disconnect(few)
    return load.ask(do="memory")["rss"]


def _fanout(load: Load, results: list[dict[str, Any]]) -> None:
    """Rounds to one room, or to ``rooms`` rooms with one member each."""
    job = load.job
    base = _warmed_up(load)
    clients = load.connect([f"bench{n}" for n in range(job.rooms)] if job.rooms else ["bench"] * job.connections)
    for burst in job.bursts:
        result = load.rounds(len(clients), burst)
        result["memory_kb"] = (result["rss"] - base) / len(clients) / 1024
        result["extension"] = clients[0].extension
        results.append(result)


def _stalled(load: Load, results: list[dict[str, Any]]) -> None:
    """The same rounds without and with one member that does not read; its frames are not counted."""
    job = load.job
    clients = load.connect(["bench"] * job.connections)
    results.append(load.rounds(len(clients), 1) | {"stalled": 0})
    (silent,) = load.connect(["bench"], receive_buffer=4096, extra=1)
    load.ignore(silent)
    # What it alone is sent first fills most of the kernel's buffers: it stalls during the rounds, not after them.
    for _ in range(_FILL // (10 * job.size)):
        load.tell(do="round", room="bench-0", burst=10, size=job.size)
    load.ask(do="cpu")  # answered when they have been sent
    results.append(load.rounds(len(clients), 1) | {"stalled": 1})


def _publish(load: Load, results: list[dict[str, Any]]) -> None:
    """Concurrent senders to one room, which has ``connections`` members here."""
    job = load.job
    load.connect(["elsewhere"])
    load.connect(["bench"] * job.connections)
    _sends(load, job.senders, max(job.each // 10, 1), job.connections)
    took = _sends(load, job.senders, job.each, job.connections)
    sends = job.senders * job.each
    results.append(
        took
        | {
            "members": job.connections,
            "sends_s": sends / took["sends_wall_s"],
            "cpu_us": took["cpu_s"] / sends * 1e6,
        }
    )


def _rooms(load: Load, results: list[dict[str, Any]]) -> None:
    """The cost of a send to one room, while the others sit in few rooms, and in many."""
    job = load.job
    load.connect(["bench"] * job.connections)
    for count, extra in ((10, 0), (job.others * (job.extra + 1), job.extra)):
        others = load.connect([f"other{n if extra else n % count}" for n in range(job.others)], extra=extra)
        _sends(load, 1, max(job.each // 10, 1), job.connections)
        parts = [_sends(load, 1, job.each, job.connections) for _ in range(_SEGMENTS)]
        results.append(
            {
                "other_rooms": count,
                "cpu_us": statistics.median(part["cpu_s"] for part in parts) / job.each * 1e6,
                "expected": sum(part["expected"] for part in parts),
                "delivered": sum(part["delivered"] for part in parts),
            }
        )
        load.disconnect(others)


def _inbound(load: Load, results: list[dict[str, Any]]) -> None:
    """Each client sends one message, and waits for the reply."""
    clients = load.connect(["bench"] * load.job.connections)
    message = {"MESSAGE_ID": "bench", "message": {"text": "x" * load.job.size}, "ref": "1"}
    frame = masked(1, json.dumps(message, separators=(",", ":")).encode())

    def send() -> None:
        for client in clients:
            client.socket.send(frame)

    results.append(load.rounds(len(clients), 1, send))


def _sends(load: Load, senders: int, each: int, members: int) -> dict[str, float]:
    expected = senders * each * members
    before = load.ask(do="cpu")
    load.tell(do="sends", room="bench", senders=senders, each=each, size=load.job.size)
    delivered = load.collect(expected, load.job.patience_s)
    answer = load.answer()
    after = load.ask(do="cpu")
    if delivered < expected:
        raise Failed(f"{delivered} of {expected} frames came, then none for {load.job.patience_s:g} s")
    return {
        "sends_wall_s": answer["sends_wall_s"],
        "cpu_s": after["cpu_s"] - before["cpu_s"],
        "expected": expected,
        "delivered": delivered,
    }


def _idle(load: Load, results: list[dict[str, Any]]) -> None:
    """Memory while the connections are there, and after they have gone: what stays then is there for ``then`` more."""
    count = load.job.connections
    base = _warmed_up(load)
    after: list[float] = []
    peaks: list[float] = []
    for wave in filter(None, (count, load.job.then)):
        clients = load.connect(["bench"] * wave)
        peaks.append(load.ask(do="memory")["rss"])
        load.disconnect(clients)
        after.append(load.ask(do="memory")["rss"])
    results.append(
        {
            "connections": count,
            "then": load.job.then,
            "memory_kb": (peaks[0] - base) / count / 1024,
            "rss_base": base,
            "rss_peaks": peaks,
            "rss_after": after,
            "extension": clients[0].extension,
        }
    )


_KINDS: dict[str, Callable[[Load, list[dict[str, Any]]], None]] = {
    "fanout": _fanout,
    "stalled": _stalled,
    "publish": _publish,
    "rooms": _rooms,
    "idle": _idle,
    "inbound": _inbound,
}
