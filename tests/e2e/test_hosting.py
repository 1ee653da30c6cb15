"""A plain FastAPI application as the host, on two instances: under `jararaca-ws serve`, and under plain uvicorn."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.fleet import ROOT
from tests.servers import OwnedProcess, RedisServer, free_port
from tests.servers.process import answer

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

SERVE = ("jararaca-ws", "serve", "--drain-window", "0")
UVICORN = ("uvicorn", "--timeout-graceful-shutdown", "5", "--ws", "websockets-sansio")


class Served:
    def __init__(self, command: tuple[str, ...], directory: Path, redis: RedisServer) -> None:
        self.port = free_port()
        program, *options = command
        self.process = OwnedProcess(
            [
                *(Path(sys.executable).with_name(program), *options, "--app-dir", str(ROOT)),
                *("--port", str(self.port), "tests.e2e.hosted_app:app"),
            ],
            log=directory / f"{self.port}.log",
            env={**os.environ, "REDIS_URL": redis.url, "JARARACA_WS_DRAIN_WINDOW": "0", "PYTHONUNBUFFERED": "1"},
        )

    def wait_until_up(self) -> None:
        self.process.wait_until(lambda: b"200 OK" in answer(self.port, b"GET /openapi.json HTTP/1.0\r\n\r\n"))

    def listen(self) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/ws/lobby", subprotocols=["jararaca.v1"])  # type: ignore[list-item]

    async def say(self, text: str) -> int:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20) as http:
            return (await http.post("/lobby", params={"text": text})).status_code


async def heard(browser: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        return json.loads(await browser.recv())


async def test_a_plain_application_reaches_all_instances_and_drains(tmp_path: Path, redis_server: RedisServer):
    fast, plain = Served(SERVE, tmp_path, redis_server), Served(UVICORN, tmp_path, redis_server)
    with fast.process, plain.process:
        await asyncio.gather(*(asyncio.to_thread(served.wait_until_up) for served in (fast, plain)))
        await talk_and_drain(fast, plain)


async def talk_and_drain(fast: Served, plain: Served) -> None:
    async with fast.listen() as one, plain.listen() as other:
        for served in (fast, plain):
            assert await served.say("hello") == 200
            for browser in (one, other):
                # Of a v1 client's frame there may be one message or two in it: an array.
                texts: list[str] = []
                while len(texts) < 2:
                    frame = await heard(browser)
                    texts += [each["message"]["text"] for each in (frame if isinstance(frame, list) else [frame])]
                assert texts == ["hello", "hello again"]
        for served, browser in ((fast, one), (plain, other)):
            served.process.signal_terminate()
            assert (await heard(browser))["MESSAGE_ID"] == "jararaca.shutdown"
            await asyncio.wait_for(browser.wait_closed(), 20)
            assert browser.close_code == 4001
            await asyncio.to_thread(served.process.wait)
            assert "Traceback" not in served.process.output()
