from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws.backends.memory import MemoryWebSocketConnectionBackend
from jararaca_ws.errors import BadMetadata, ConfigurationError
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.presence import PresenceSettings
from tests.unit.clusters import HubBackend, cluster


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": timedelta(0)},
        {"ttl": timedelta(seconds=-1)},
        {"grace": timedelta(seconds=-1)},
        {"window": 1},
        {"threshold": -1},
        {"threshold": 1.5},
        {"max_metadata_bytes": -1},
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        PresenceSettings(**options)


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": float("nan")},
        {"x": [{"y": float("inf")}]},
        {"x": object()},
        {"x": b"bytes"},
        {1: "x"},
        ["x"],
        "x",
        None,
        {"x": "\ud800"},
        {"x": "y" * 1024},
    ],
)
def test_what_is_no_metadata_is_refused_and_not_shown(metadata: Any):
    with pytest.raises(BadMetadata) as caught:
        PresenceSettings().check(metadata)
    assert "yyy" not in str(caught.value)


def test_a_deep_one_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"x": deep}
    with pytest.raises(BadMetadata):
        PresenceSettings(max_metadata_bytes=10**9).check(deep)


def test_the_limit_is_of_the_bytes_as_json():
    settings = PresenceSettings(max_metadata_bytes=len('{"x":"ü"}'.encode()))
    assert settings.check({"x": "ü"}) == {"x": "ü"}
    with pytest.raises(BadMetadata, match="12 bytes"):
        settings.check({"x": "üü"})


async def test_metadata_is_a_copy():
    given = {"tags": ["a"]}
    async with cluster(
        WebSocketConnectionManager(MemoryWebSocketConnectionBackend(), presence=PresenceSettings())
    ) as instances:
        socket = await instances.socket(0, "a")
        await socket.connection.set_metadata(given)
        given["tags"].append("b")
        assert socket.connection.metadata == {"tags": ["a"]}
        with pytest.raises(BadMetadata):
            await socket.connection.set_metadata({"x": "y" * 2000})
        assert socket.connection.metadata == {"tags": ["a"]}


async def test_where_presence_is_off_its_use_is_refused_with_the_cure():
    async with cluster(WebSocketInterceptor().manager) as instances:
        socket = await instances.socket(0, "a", v1=True)
        for use in (
            instances.managers[0].presence("a"),
            socket.connection.set_metadata({}),
            socket.connection.watch_presence("a"),
            socket.connection.unwatch_presence("a"),
        ):
            with pytest.raises(ConfigurationError, match=r"WebSocketInterceptor\(presence=PresenceSettings\(\)\)"):
                await use


def test_a_backend_that_keeps_no_presence_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="HubBackend keeps no presence"):
        WebSocketInterceptor(HubBackend([]), presence=PresenceSettings())


async def test_a_manager_that_was_never_started_has_no_presence():
    manager = WebSocketConnectionManager(MemoryWebSocketConnectionBackend(), presence=PresenceSettings())
    with pytest.raises(ConfigurationError, match="never started"):
        await manager.presence("a")
