from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """On both loops that uvicorn runs on: their transports buffer, pause and close in ways of their own."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_handshakes.py", "test_stalls.py", "test_tls.py"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops
