"""A Redis cluster of three masters: the contract of a backend, slots that move, masters that die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio.cluster import RedisCluster

from jararaca_ws.backends.base import Retention
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.testing import BACKEND_CONTRACT
from jararaca_ws.testing.recorder import Recorder
from tests.servers.redis_cluster import RedisClusterServers

pytestmark = pytest.mark.redis

KEEP = Retention(size=10_000, ttl_ms=600_000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    """One for all: every test has a prefix of its own."""
    servers = RedisClusterServers(tmp_path_factory.mktemp("cluster"), replicas=1)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def make(servers: RedisClusterServers, prefix: str, **options: object) -> RedisWebSocketConnectionBackend:
    conn = RedisCluster(host="127.0.0.1", port=servers.masters[-1].port)
    settings = {"probe_interval": timedelta(milliseconds=300), "prefix": prefix, **options}
    return RedisWebSocketConnectionBackend(conn, **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def started(backend: RedisWebSocketConnectionBackend) -> AsyncIterator[Recorder]:
    recorder = Recorder(backend)
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()


async def poll(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is watched has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)
async def test_contract(check: Callable[..., object], cluster: RedisClusterServers):
    await check(lambda: make(cluster, f"c-{check.__name__}"))  # type: ignore[misc, attr-defined]
