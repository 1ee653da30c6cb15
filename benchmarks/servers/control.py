"""The control socket, by which the load generator drives a server. The same for every system: only asyncio.

One JSON object per line; every command but `round` is answered, with the CPU seconds so far where nothing else is said.

    {"do": "cpu"}
    {"do": "memory"}                                         answered with the resident memory, after a collection
    {"do": "wait", "joined": N, "left": N}                   until that many sockets have joined their rooms, or left
    {"do": "round", "room": R, "rooms": N, "burst": K}       one tick: K messages to R, or to each of R0 .. R(N-1)
    {"do": "sends", "room": R, "senders": S, "each": N}      S tasks, N awaited sends each; answered when all are done

A round is not answered: the load generator counts what arrives, and starts the next one when all has.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

PORT = int(os.environ.get("BENCH_PORT", "0"))
CONTROL_PORT = int(os.environ.get("BENCH_CONTROL_PORT", "0"))
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")
"""Empty: the system's own memory backend."""

_TEXTS = 64
_WORDS = (
    *("room", "user", "sends", "typed", "text", "late", "green", "small"),
    *("harbour", "forty", "seven", "answer", "maybe", "window", "letter", "found"),
)


def rooms_of(query: str) -> list[str]:
    """The rooms that a socket joins: ``room``, and ``extra`` more of its own."""
    asked = parse_qs(query)
    room = asked["room"][0]
    return [room, *(f"{room}-{number}" for number in range(int(asked.get("extra", ["0"])[0])))]


class Control:
    """Sends what it is told to send, and says what that has cost.

    Args:
        send: one text to one room, by the system's public API.
        envelope: bytes that the system adds to the text in the frame. A frame's payload has the same size everywhere.
        side_by_side: how many sends of one tick are awaited together, as by that many concurrent requests: for a
            system whose `send` waits for Redis.
    """

    def __init__(self, send: Callable[[str, str], Awaitable[Any]], *, envelope: int = 0, side_by_side: int = 1) -> None:
        self.joined = 0
        self.left = 0
        self._send = send
        self._envelope = envelope
        self._side_by_side = side_by_side
        self._texts: dict[int, list[str]] = {}
        self._sent = 0
        self._answers: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
            "cpu": self._cpu,
            "memory": self._memory,
            "wait": self._wait,
            "sends": self._sends,
        }

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", CONTROL_PORT):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Reset: the load generator has given up, and the server is about to be killed.
        with suppress(ConnectionError):
            while line := await reader.readline():
                command = json.loads(line)
                kind = command.pop("do")
                if kind == "round":
                    await self._round(**command)
                    continue
                answer = await self._answers[kind](**command)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _cpu(self) -> dict[str, float]:
        return {"cpu_s": time.process_time()}

    async def _memory(self) -> dict[str, float]:
        # Half a second with 5,000 connections: only where the memory is asked for.
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])  # noqa: ASYNC240 - no disk behind it
        return {"rss": pages * resource.getpagesize()}

    async def _wait(self, joined: int, left: int) -> dict[str, float]:
        while self.joined < joined or self.left < left:  # noqa: ASYNC110 - servers only count
            await asyncio.sleep(0.005)
        return await self._cpu()

    async def _round(self, room: str, rooms: int = 0, burst: int = 1, size: int = 128) -> None:
        targets = [f"{room}{number}" for number in range(rooms)] if rooms else [room]
        sends = [(target, self._text(size)) for _ in range(burst) for target in targets]
        if self._side_by_side == 1 or len(sends) == 1:
            for target, text in sends:
                await self._send(target, text)
            return
        for start in range(0, len(sends), self._side_by_side):
            await asyncio.gather(*[self._send(*send) for send in sends[start : start + self._side_by_side]])

    async def _sends(self, room: str, senders: int, each: int, size: int = 128) -> dict[str, float]:
        started, cpu = time.perf_counter(), time.process_time()

        async def sender() -> None:
            for _ in range(each):
                await self._send(room, self._text(size))
                # Nobody sends without ever letting the loop turn; a memory backend would.
                await asyncio.sleep(0)

        await asyncio.gather(*[sender() for _ in range(senders)])
        took = {"sends_wall_s": time.perf_counter() - started, "sends_cpu_s": time.process_time() - cpu}
        return await self._cpu() | took

    def _text(self, size: int) -> str:
        """One of a few texts of words and numbers, which compress as chat and notifications do."""
        if size not in self._texts:
            self._texts[size] = [_make_text(seed, size - self._envelope) for seed in range(_TEXTS)]
        self._sent += 1
        return self._texts[size][self._sent % _TEXTS]


def _make_text(seed: int, length: int) -> str:
    choose = random.Random(seed)
    text = ""
    while len(text) < length:
        text += f"{choose.choice(_WORDS)} {choose.randrange(10_000)} "
    return text[:length]


def run(main: Callable[[], Awaitable[None]]) -> None:
    """`main` in uvloop, as uvicorn's own command would have it."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())  # type: ignore[arg-type]  # a coroutine, not any awaitable


def serve_asgi(app: Any, control: Control, **options: Any) -> None:
    """Serve with uvicorn's defaults and ``options``."""
    import uvicorn

    async def main() -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=PORT, log_level="warning", **options)
        async with control.listening():
            await uvicorn.Server(config).serve()

    run(main)
