"""The load generator: one process, plain sockets and epoll. A job comes as JSON on stdin, the result goes to stdout.

It goes round by round. A round is one tick of the server: it sends, we count frames until all have come, and then ask
for the next. So no system is ever measured while it queues, and what it costs does not depend on how fast we read.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.frames import CLOSE, PING, FrameCounter, masked

_TOGETHER = 100
"""How many handshakes are under way at once: fewer than any backlog."""
_SEGMENTS = 5
_WARM_UP_ROUNDS = 3
_HEADER = 4
"""Bytes of a frame's header, where the payload has 126 to 65,535 bytes; with a shorter one, some of it."""


class Failed(Exception):
    """The server did not do what the workload takes; the text is the reason in the results."""


@dataclass(slots=True, kw_only=True)
class Job:
    """What one run does. See workloads.py for the meaning of the sizes.

    Attributes:
        path: the request target, with ``{room}`` in it.
        after_upgrade: sent by the client after the handshake, and answered once (Socket.IO).
    """

    port: int
    control_port: int
    kind: str
    path: str
    after_upgrade: str = ""
    connections: int
    deflate: bool = False
    rooms: int = 0
    bursts: list[int] = field(default_factory=lambda: [1])
    size: int = 128
    seconds: float = 1.0
    max_rounds: int = 1_000_000
    patience_s: float = 5.0
    stalled: bool = False
    senders: int = 1
    each: int = 0
    others: int = 0
    extra: int = 0
    then: int = 0


class Client:
    __slots__ = ("counter", "extension", "recv_into", "socket")

    def __init__(self, sock: socket.socket, extension: str, first_bytes: bytes) -> None:
        self.socket = sock
        self.extension = extension
        self.recv_into = sock.recv_into
        self.counter = FrameCounter()
        self.counter.feed(first_bytes)


class Load:
    """All the clients, and the control socket."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.closed = 0
        self.latencies = array("d")
        self._clients: dict[int, Client] = {}
        self._poll = select.epoll()
        self._view = memoryview(bytearray(1 << 20))
        self._control = socket.create_connection(("127.0.0.1", job.control_port), timeout=60)
        self._control.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._control.makefile("rb")
        self._joined = self._left = 0

    # --- control ------------------------------------------------------------------------------------------------------

    def tell(self, **command: Any) -> None:
        self._control.sendall(json.dumps(command).encode() + b"\n")

    def ask(self, timeout: float = 60, **command: Any) -> dict[str, float]:
        self.tell(**command)
        return self.answer(timeout)

    def answer(self, timeout: float = 60) -> dict[str, float]:
        self._control.settimeout(timeout)
        try:
            line = self._answers.readline()
        except TimeoutError:
            raise Failed(f"the server did not answer within {timeout:g} s") from None
        if not line:
            raise Failed("the server closed its control socket")
        answer: dict[str, float] = json.loads(line)
        return answer

    # --- connections --------------------------------------------------------------------------------------------------

    def connect(self, rooms: Iterable[str], *, receive_buffer: int = 0, extra: int = 0) -> list[Client]:
        """Clients that have joined one room each, and are watched."""
        names = list(rooms)
        clients: list[Client] = []
        for start in range(0, len(names), _TOGETHER):
            batch = names[start : start + _TOGETHER]
            sockets = [_connected(self.job.port, receive_buffer) for _ in batch]
            for sock, room in zip(sockets, batch, strict=True):
                sock.sendall(self._request(room, extra))
            clients += [self._upgraded(sock) for sock in sockets]
        self._joined += len(names)
        self.ask(do="wait", joined=self._joined, left=self._left)
        for client in clients:
            self._clients[client.socket.fileno()] = client
            self._poll.register(client.socket.fileno(), select.EPOLLIN)
        return clients

    def _request(self, room: str, extra: int) -> bytes:
        path = self.job.path.format(room=room) + (f"&extra={extra}" if extra else "")
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        if self.job.deflate:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")  # as Chromium does
        return "\r\n".join([*lines, "", ""]).encode()

    def _upgraded(self, sock: socket.socket) -> Client:
        head, rest = _read_until(sock, b"\r\n\r\n")
        status, *fields = head.decode("latin1").split("\r\n")
        if " 101 " not in f"{status} ":
            raise Failed(f"the handshake was answered with {status!r}")
        extensions = [line.partition(":")[2].strip() for line in fields if line.lower().startswith("sec-websocket-ext")]
        client = Client(sock, ", ".join(extensions), b"")
        frames = client.counter.feed(rest)
        if self.job.after_upgrade:
            sock.sendall(masked(1, self.job.after_upgrade.encode()))
            while frames < 2:  # the server's own opening packet, and the answer
                frames += client.counter.feed(_received(sock))
        sock.setblocking(False)
        return client

    def disconnect(self, clients: Iterable[Client]) -> None:
        """Close abruptly, as a browser that is killed does, and wait until the server has noticed all."""
        for client in clients:
            if self._clients.pop(client.socket.fileno(), None) is not None:
                self._poll.unregister(client.socket.fileno())
            client.socket.close()
            self._left += 1
        self.ask(do="wait", joined=0, left=self._left)

    def ignore(self, client: Client) -> None:
        """Never read from it again, and leave it open."""
        self._poll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]

    # --- counting -----------------------------------------------------------------------------------------------------

    def collect(self, frames: int, patience_s: float, started: float | None = None) -> int:
        """Read until ``frames`` frames have come, or nothing has for ``patience_s``; returns how many have.

        With ``started`` the latency of each read is kept.
        """
        seen, clients, latencies, clock = 0, self._clients, self.latencies, time.perf_counter
        view = self._view
        # Most reads bring one whole frame with the header of the one before: those are not taken apart again.
        usual_size, usual_head = 0, b""
        while seen < frames:
            events = self._poll.poll(patience_s)
            if not events:
                break
            for number, _ in events:
                client = clients[number]
                try:
                    size = client.recv_into(view)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    size = 0
                if size == 0:
                    self._lost(number)
                    continue
                counter = client.counter
                if size == usual_size and view[:_HEADER] == usual_head and counter.between_frames:
                    seen += 1
                    if started is not None:
                        latencies.append(clock() - started)
                    continue
                data = bytes(view[:size])
                new = counter.feed(data)
                seen += new
                if started is not None:
                    latencies.extend([clock() - started] * new)
                if counter.control:
                    self._answer_control(client)
                elif new == 1 and counter.between_frames:
                    usual_size, usual_head = size, data[:_HEADER]
        return seen

    def _lost(self, number: int) -> None:
        self.closed += 1
        self._poll.unregister(number)
        self._clients.pop(number).socket.close()

    def _answer_control(self, client: Client) -> None:
        for opcode, payload in client.counter.control:
            if opcode == PING:
                client.socket.send(masked(0xA, payload))
            elif opcode == CLOSE:
                self.closed += 1
        client.counter.control.clear()

    # --- rounds -------------------------------------------------------------------------------------------------------

    def rounds(self, members: int, burst: int, begin: Callable[[], None] | None = None) -> dict[str, Any]:
        """As many rounds as fit into the time, in segments; the CPU figure is the median of the segments.

        A round begins with the order to send, or else with ``begin``.
        """
        job = self.job
        per_round = members * burst
        command = {"do": "round", "room": "bench", "rooms": job.rooms, "burst": burst, "size": job.size}
        begin = begin or partial(self.tell, **command)
        self._warm_up(begin, per_round)
        self.latencies = array("d")
        cpu_us: list[float] = []
        rounds = received = expected = 0
        self.ask(do="memory")  # what connecting has left to collect is not in the figures
        after = self.ask(do="cpu")
        wall_s = load_cpu_s = 0.0
        for _ in range(_SEGMENTS):
            if wall_s > 2 * job.seconds:  # so slow that a single round is longer than a segment
                break
            before = after
            started, load_cpu, in_segment = time.perf_counter(), time.process_time(), 0
            deadline = started + job.seconds / _SEGMENTS
            while in_segment == 0 or (time.perf_counter() < deadline and rounds < job.max_rounds):
                begin()
                got = self.collect(per_round, job.patience_s, time.perf_counter())
                rounds, in_segment, received, expected = (
                    rounds + 1,
                    in_segment + 1,
                    received + got,
                    expected + per_round,
                )
                if got < per_round:
                    raise Failed(_shortfall(rounds, got, per_round, job.patience_s, self.closed))
            wall_s += time.perf_counter() - started
            load_cpu_s += time.process_time() - load_cpu
            after = self.ask(do="cpu")
            cpu_us.append((after["cpu_s"] - before["cpu_s"]) / (in_segment * per_round) * 1e6)
        return {
            "members": members,
            "burst": burst,
            "rounds": rounds,
            "expected": expected,
            "delivered": received,
            "cpu_us": statistics.median(cpu_us),
            "cpu_us_segments": cpu_us,
            "deliveries_s": received / wall_s,
            "rss": self.ask(do="memory")["rss"],
            **_percentiles(self.latencies),
            "load_cpu_us": load_cpu_s / received * 1e6,
            "load_cpu_share": load_cpu_s / wall_s,
        }

    def _warm_up(self, begin: Callable[[], None], per_round: int) -> None:
        started = time.perf_counter()
        for _ in range(_WARM_UP_ROUNDS):
            begin()
            got = self.collect(per_round, self.job.patience_s)
            if got < per_round:
                raise Failed(_shortfall(0, got, per_round, self.job.patience_s, self.closed))
            if time.perf_counter() - started > self.job.seconds:
                break


def _shortfall(rounds: int, got: int, wanted: int, patience_s: float, closed: int) -> str:
    lost = f"; {closed} connections were closed" if closed else ""
    return f"round {rounds}: {got} of {wanted} frames came, then none for {patience_s:g} s{lost}"


def _percentiles(latencies: array[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1e3 for name, part in at.items()}


def _connected(port: int, receive_buffer: int) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(20)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    return sock


def _received(sock: socket.socket) -> bytes:
    try:
        data = sock.recv(65536)
    except TimeoutError:
        raise Failed("a handshake took longer than 20 s") from None
    if not data:
        raise Failed("a connection was closed during the handshake")
    return data


def _read_until(sock: socket.socket, end: bytes) -> tuple[bytes, bytes]:
    data = b""
    while end not in data:
        data += _received(sock)
    head, _, rest = data.partition(end)
    return head, rest


def main() -> None:
    from benchmarks import kinds

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    job = Job(**json.load(sys.stdin))
    try:
        result = kinds.run(job)
    except Failed as reason:
        result = {"results": [], "failed": str(reason)}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
