"""What is under way when the server is told to stop."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.server.running import FAST, running, until


async def test_a_handshake_that_is_under_way_is_refused_with_503_so_that_another_instance_takes_it():
    async with running(FAST) as server:
        browser = asyncio.create_task(_open(server.url("/slow")))
        await until(lambda: server.connections)
        server.server.should_exit = True
        with pytest.raises(InvalidStatus) as refused:
            await browser
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "1"


async def test_a_handler_that_fails_before_its_handshake_is_still_a_500():
    async with running(FAST) as server:
        with pytest.raises(InvalidStatus) as refused:
            await _open(server.url("/fails-early"))
    assert refused.value.response.status_code == 500


async def _open(url: str) -> None:
    async with connect(url, proxy=None):
        pass
