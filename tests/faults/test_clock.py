"""F43: the wall clock jumps by an hour, forwards and back. Timers do not look at it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import jararaca_ws
from jararaca_ws.settings import WebSocketSettings
from tests.faults.test_redis import admin, channels, make, poll, started
from tests.server.running import CLOSE, PING, PONG, Note, frame, raw_socket, running, until
from tests.servers import RedisServer

HOUR_S = 3600.0

Jump = Callable[[float], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Set the clock that everything in this process reads off by so many seconds."""
    real_s, real_ns, offset = time.time, time.time_ns, 0.0

    def off_by(seconds: float) -> None:
        nonlocal offset
        offset = seconds

    monkeypatch.setattr(time, "time", lambda: real_s() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(offset * 1e9))
    return off_by


WALL_CLOCK = {
    "auth/expiry.py": "when a token expires is written in it as a time of day",
    "auth/revocation.py": "what was issued before a moment is refused, and tokens say when they were issued",
    "auth/tickets.py": "a ticket counts as issued when it is minted",
}


def test_f43_nothing_reads_the_wall_clock_but_what_is_named_with_its_reason():
    wall_clock = re.compile(r"\btime\.time(_ns)?\b|(?<!give one, datetime\.)\b(utc)?now\(|from time import|\btoday\(")
    package = Path(jararaca_ws.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if any(wall_clock.search(line) for line in path.read_text().splitlines())
    }
    assert found == WALL_CLOCK.keys()


@pytest.mark.redis
async def test_f43_the_link_to_redis_does_not_mind(redis_server: RedisServer, jump: Jump):
    backend = make(redis_server, unsubscribe_linger=timedelta(milliseconds=200))
    async with started(backend) as one, admin(redis_server) as client:
        await one.subscribe("a", "b")
        await poll(lambda: backend.healthy)
        backend.unsubscribe(["b"])
        for offset_s in (HOUR_S, -HOUR_S, 0.0):
            jump(offset_s)
            lag = backend.lag_s
            await poll(lambda lag=lag: backend.lag_s != lag)  # type: ignore[misc]  # the watchdog has gone round
            await one.backend.send(["a"], b"%d" % offset_s)
        await one.until(lambda: len(one.sent) == 3)
        async with asyncio.timeout(5):
            while b"jararaca:websocket:send:b" in await channels(client):  # noqa: ASYNC110  # Redis knows
                await asyncio.sleep(0.02)
        assert one.messages == [b"3600", b"-3600", b"0"]
        assert one.gaps == []
        assert backend.healthy


async def test_f43_a_socket_does_not_mind(jump: Jump):
    settings = WebSocketSettings(write_timeout=timedelta(seconds=5))
    async with running(settings=settings, ws_ping_interval=0.2, ws_ping_timeout=5) as server:
        async with raw_socket(server.port, "/room/a") as client:
            await until(lambda: server.manager.members("a"))
            for offset_s in (HOUR_S, -HOUR_S, 0.0):
                jump(offset_s)
                await server.manager.send(["a"], Note(text="hello"))
                pings = messages = 0
                while not (pings and messages):
                    first, payload = await client.frame()
                    assert first & 15 != CLOSE
                    if first & 15 == PING:
                        pings += 1
                        await client.write(frame(PONG, payload))
                    else:
                        messages += 1
            assert server.connections[0].alive
