"""Who a client is, over real servers and a real client: `jararaca-ws serve`, and plain uvicorn."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.authenticated_app import APP, SECRET
from tests.e2e.fleet import ROOT
from tests.servers import OwnedProcess, free_port
from tests.servers.process import answer

pytestmark = pytest.mark.e2e

SERVERS = {
    "jararaca-ws": ("jararaca-ws", "serve", "--drain-window", "0", "--log-level", "debug"),
    "uvicorn": ("uvicorn", "--ws", "websockets-sansio"),
}


class Served:
    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    async def greeted(self, path: str = "/ws", **options: Any) -> tuple[str, str | None]:
        """Who the server says it is, and the subprotocol."""
        async with asyncio.timeout(20), connect(self.url(path), **options) as socket:
            return json.loads(await socket.recv())["message"]["user_id"], socket.subprotocol

    async def refused(self, path: str = "/ws", **options: Any) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with asyncio.timeout(20), connect(self.url(path), **options):
                pass
        return refused.value.response.status_code


@pytest.fixture(params=SERVERS.values(), ids=SERVERS.keys())
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(request.param, tmp_path) as one:
        yield one


@asynccontextmanager
async def serving(command: tuple[str, ...], directory: Path) -> AsyncIterator[Served]:
    port, (program, *options) = free_port(), command
    log = directory / "server.log"
    process = OwnedProcess(
        [
            *(Path(sys.executable).with_name(program), *options, "--app-dir", str(ROOT)),
            *("--port", str(port), "tests.e2e.authenticated_app:app"),
        ],
        log=log,
        env={**os.environ, "JARARACA_WS_DRAIN_WINDOW_S": "0", "PYTHONUNBUFFERED": "1"},
    )
    with process:
        up = b"GET /openapi.json HTTP/1.0\r\n\r\n"
        await asyncio.to_thread(process.wait_until, lambda: b"200 OK" in answer(port, up))
        yield Served(port, log)


def token(who: str = "ana", **claims: Any) -> str:
    return jwt.encode({"sub": who, "exp": datetime.now(UTC) + timedelta(minutes=5), **claims}, SECRET, "HS256")


def offered(token: str) -> Any:
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    return [f"jararaca.token.{encoded}", "jararaca.v1"]


async def test_a_client_gets_in_by_each_way_and_no_other(served: Served):
    good, expired = token(), token(exp=datetime.now(UTC) - timedelta(minutes=5))
    assert await served.greeted(additional_headers={"Authorization": f"Bearer {good}"}) == ("ana", None)
    assert await served.greeted(subprotocols=offered(good)) == ("ana", "jararaca.v1")
    cookie = {"Cookie": f"session={good}"}
    assert await served.greeted(additional_headers=cookie, origin=APP) == ("ana", None)
    for bad in ("", "a.b.c", expired, good[:-2]):
        assert await served.refused(additional_headers={"Authorization": f"Bearer {bad}"}) == 401
        assert await served.refused(subprotocols=offered(bad)) == 401
    assert await served.refused() == 401
    for origin in ("https://app.example.com.evil.io", "null", None):
        assert await served.refused(additional_headers=cookie, origin=origin) == 403


async def test_b27_and_the_first_message(served: Served):
    async with asyncio.timeout(20), connect(served.url("/message"), origin=APP) as socket:
        await socket.send(json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": {"token": token("rui")}}))
        assert json.loads(await socket.recv())["message"]["user_id"] == "rui"
    async with asyncio.timeout(20), connect(served.url("/message")) as socket:
        await socket.send(json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": {"token": "bad"}}))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4500


async def test_b26_no_server_logs_a_token(served: Served):
    good = token()
    await served.greeted(additional_headers={"Authorization": f"Bearer {good}"})
    await served.greeted(subprotocols=offered(good))
    await served.refused(subprotocols=offered(good[:-2]))
    await served.greeted(additional_headers={"Cookie": f"session={good}"}, origin=APP)
    async with asyncio.timeout(20), connect(served.url("/message"), origin=APP) as socket:
        for again in (good, good, good[:-2]):
            await socket.send(json.dumps({"MESSAGE_ID": "jararaca.authenticate", "message": {"token": again}}))
        await socket.wait_closed()
        assert socket.close_code == 4500
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as http:
        ticket = (await http.post("/tickets/ana")).json()
    assert (await served.greeted(f"/ws?ticket={ticket}"))[0] == "ana"
    assert await served.refused(f"/ws?ticket={ticket}") == 401
    log = served.log.read_text()
    assert ticket in log, "the server logs query strings: that is why a ticket counts only once"
    assert "is refused: authentication failed" in log
    assert good[:40] not in log
    assert offered(good)[0][:60] not in log
