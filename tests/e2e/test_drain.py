"""SIGTERM with sockets open (F16), and a second one (F17): under `jararaca-ws serve`, and under plain uvicorn."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.fleet import Instance, PlainUvicorn
from tests.e2e.test_fleet import raw_websocket
from tests.servers import OwnedProcess

pytestmark = pytest.mark.e2e

WINDOW_S = 2


async def start(tmp_path: Path, window_s: int) -> Instance:
    instance = Instance(tmp_path, options=("--drain-window", str(window_s)))
    await asyncio.to_thread(instance.wait_until_up)
    return instance


async def ended(process: OwnedProcess, code: int = 0) -> float:
    started = time.monotonic()
    assert await asyncio.to_thread(process.wait) == code, process.output()
    return time.monotonic() - started


async def end_of(browser: ClientConnection) -> tuple[float, list[dict[str, object]]]:
    messages = []
    try:
        async with asyncio.timeout(20):
            while True:
                messages.append(json.loads(await browser.recv()))
    except ConnectionClosed:
        return time.monotonic(), messages


async def test_f16_sockets_close_spread_over_the_window_and_a_stalled_reader_holds_nothing_up(tmp_path: Path):
    instance = await start(tmp_path, WINDOW_S)
    stalled = await asyncio.to_thread(raw_websocket, instance.port, "/ws/lobby")
    async with AsyncExitStack() as stack:
        plain = [await stack.enter_async_context(connect(instance.ws("lobby"))) for _ in range(60)]
        v1 = [
            await stack.enter_async_context(connect(instance.ws("lobby"), subprotocols=["jararaca.v1"]))  # type: ignore[list-item]
            for _ in range(20)
        ]
        instance.process.signal_terminate()
        took_s = asyncio.create_task(ended(instance.process))
        ends = await asyncio.gather(*map(end_of, plain + v1))
        assert {browser.close_code for browser in plain} == {1012}
        assert {browser.close_code for browser in v1} == {4001}
        assert all(messages == [] for _, messages in ends[:60]), "a plain client gets no control message"
        told = [messages[0] for _, messages in ends[60:]]
        assert {message["MESSAGE_ID"] for message in told} == {"jararaca.shutdown"}
        assert len({json.dumps(message["message"]) for message in told}) > 10, "each comes back at a time of its own"
        moments = sorted(moment for moment, _ in ends)
        assert moments[-1] - moments[0] > WINDOW_S / 2, "80 sockets, drawn evenly from the window"
        # F16: within the window and two seconds, although one reader never reads.
        assert await took_s < WINDOW_S + 2
    stalled.close()


async def test_f17_a_second_signal_ends_everything_at_once(tmp_path: Path):
    instance = await start(tmp_path, 30)
    async with connect(instance.ws("lobby")) as browser:
        instance.process.signal_terminate()
        await asyncio.to_thread(instance.process.wait_until, lambda: "Shutting down" in instance.process.output())
        assert browser.close_code is None
        instance.process.signal_terminate()
        took_s = await ended(instance.process)
        await end_of(browser)
        assert browser.close_code == 1006
    assert took_s < 5, "far less than the window of 30 s; F17 has 1 s, on a machine with nothing else to do"


async def refused_status(url: str) -> int:
    """With what a new socket is refused; fails where it is taken."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url):
            pass
    return refused.value.response.status_code


# uvicorn with one process ends by the signal that it got, as it does without us.
@pytest.mark.parametrize(("workers", "code"), [(1, -signal.SIGTERM), (2, 0)])
async def test_f16_under_plain_uvicorn(tmp_path: Path, workers: int, code: int):
    options = ("--timeout-graceful-shutdown", "1", "--workers", str(workers))
    server = await asyncio.to_thread(PlainUvicorn, tmp_path, *options, drain_window_s=WINDOW_S)
    stalled = await asyncio.to_thread(raw_websocket, server.port, "/heap")
    # It has stalled: neither its kernel buffers nor uvicorn's take any more.
    await asyncio.to_thread(server.process.wait_until, lambda: max(server.waiting_bytes(), default=0) > 400_000)
    async with AsyncExitStack() as stack:
        plain = [await stack.enter_async_context(connect(server.ws("lobby"))) for _ in range(60)]
        v1 = [
            await stack.enter_async_context(connect(server.ws("lobby"), subprotocols=["jararaca.v1"]))  # type: ignore[list-item]
            for _ in range(20)
        ]
        server.process.signal_terminate()
        took_s = asyncio.create_task(ended(server.process, code))
        ends = [asyncio.create_task(end_of(browser)) for browser in plain + v1]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert await refused_status(server.ws("lobby")) == 503, "another instance may take it"
        moments = sorted(moment for moment, _ in await asyncio.gather(*ends))
        assert {browser.close_code for browser in plain} == {1012}
        assert {browser.close_code for browser in v1} == {4001}
        assert all(messages == [] for messages in [end.result()[1] for end in ends[:60]])
        told = [end.result()[1][0] for end in ends[60:]]
        assert {message["MESSAGE_ID"] for message in told} == {"jararaca.shutdown"}
        assert moments[-1] - moments[0] > WINDOW_S / 2
        assert moments[40] - moments[0] > WINDOW_S / 4, "evenly, not in two heaps"
        # The parent of two looks twice a second for the signal that it got.
        assert await took_s < WINDOW_S + 2 + (workers > 1)
    stalled.close()


async def test_f17_under_plain_uvicorn_a_second_signal_goes_straight_through(tmp_path: Path):
    options = ("--timeout-graceful-shutdown", "1")
    server = await asyncio.to_thread(PlainUvicorn, tmp_path, *options, drain_window_s=60)
    async with connect(server.ws("lobby")) as first, connect(server.ws("lobby")) as last:
        server.process.signal_terminate()
        # The first closes at once, the other one in half a minute.
        ends = [asyncio.create_task(end_of(one)) for one in (first, last)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert [first.close_code, last.close_code].count(None) == 1
        server.process.signal_terminate()
        took_s = await ended(server.process, -signal.SIGTERM)
        await asyncio.gather(*ends)
        assert first.close_code == last.close_code == 1012
    assert took_s < 5
