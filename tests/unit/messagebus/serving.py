"""A microservice on the in-memory bus, running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import MemoryMessageBus
from jararaca_ws.microservice import Microservice, MicroserviceRuntime


def fast_bus(**options: Any) -> MemoryMessageBus:
    """Retries at once, whatever the handlers' backoff."""
    return MemoryMessageBus(max_retry_delay=timedelta(0), **options)


async def until(condition: Callable[[], object], timeout_s: float = 15) -> None:
    """Poll until the condition is true.

    Raises:
        TimeoutError: it did not become true.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110, there is no event for it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    *controllers: type, bus: MemoryMessageBus | None = None, interceptors: tuple[Any, ...] = (), grace_s: float = 5
) -> AsyncIterator[MemoryMessageBus]:
    bus = bus or fast_bus()
    interceptor = MessageBusInterceptor(bus=bus, grace=timedelta(seconds=grace_s))
    microservice = Microservice(controllers=controllers, interceptors=[interceptor, *interceptors], name="shop")
    async with MicroserviceRuntime(microservice).lifespan():
        yield bus
