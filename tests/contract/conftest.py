"""Backends that share what they carry, as the instances of one deployment do."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest

from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from tests.servers import RedisServer
from tests.unit.clusters import HubBackend, MakeBackend

REDIS = ["fakeredis", pytest.param("redis", marks=pytest.mark.redis)]
"""The parameters that `on_redis` knows."""


def on_redis(request: pytest.FixtureRequest, **options: Any) -> MakeBackend:
    """What makes backends on one Redis, which is fakeredis' or a real one."""
    if request.param == "fakeredis":
        server = fakeredis.FakeServer()
        return lambda: RedisWebSocketConnectionBackend(fakeredis.FakeAsyncRedis(server=server), **options)
    redis: RedisServer = request.getfixturevalue("redis_server")
    return lambda: RedisWebSocketConnectionBackend(redis.url, **options)


@pytest.fixture(params=REDIS)
def make_on_redis(request: pytest.FixtureRequest) -> MakeBackend:
    return on_redis(request)


@pytest.fixture(params=["four methods", *REDIS])
def make(request: pytest.FixtureRequest) -> MakeBackend:
    if request.param == "four methods":
        hub: list[HubBackend] = []
        return lambda: HubBackend(hub)
    return on_redis(request)
