from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from jararaca_ws.context import (
    provide_bus,
    provide_publisher,
    provide_ws_manager,
    provide_ws_message_sender,
    use_bus,
    use_publisher,
    use_ws_manager,
    use_ws_message_sender,
)
from jararaca_ws.errors import NotBound

SLOTS = [(provide_ws_manager, use_ws_manager), (provide_bus, use_bus)]


@pytest.mark.parametrize("use", [use_ws_manager, use_ws_message_sender])
def test_without_an_interceptor_the_error_says_what_to_do(use):
    with pytest.raises(NotBound, match=r"no WebSocket connection manager is bound here: put a WebSocketInterceptor"):
        use()


@pytest.mark.parametrize("use", [use_bus, use_publisher])
def test_without_a_message_bus_the_error_says_what_to_do(use):
    with pytest.raises(NotBound, match=r"no message bus is bound here: put a MessageBusInterceptor"):
        use()


@pytest.mark.parametrize(("provide", "use"), SLOTS)
def test_what_is_provided_is_used_until_the_end_of_the_block(provide, use):
    outer, inner = cast(Any, object()), cast(Any, object())
    with provide(outer):
        with suppress(KeyError), provide(inner):
            assert use() is inner
            raise KeyError
        assert use() is outer
    with pytest.raises(NotBound):
        use()


def test_a_sender_goes_before_the_manager_and_a_publisher_before_the_bus():
    manager, sender, bus, publisher = (cast(Any, object()) for _ in range(4))
    with provide_ws_manager(manager), provide_bus(bus):
        assert use_ws_message_sender() is manager
        assert use_publisher() is bus
        with provide_ws_message_sender(sender), provide_publisher(publisher):
            assert use_ws_message_sender() is sender
            assert use_publisher() is publisher
            assert use_ws_manager() is manager
            assert use_bus() is bus


async def test_a_task_keeps_what_was_bound_when_it_was_started_and_others_do_not_see_it():
    manager = cast(Any, object())
    started = asyncio.Event()

    async def task() -> object:
        await started.wait()
        return use_ws_manager()

    async with asyncio.TaskGroup() as tasks:
        outside = tasks.create_task(_raises_not_bound(started))
        with provide_ws_manager(manager):
            inside = tasks.create_task(task())
        started.set()
    assert inside.result() is manager
    assert outside.result()


async def _raises_not_bound(started: asyncio.Event) -> bool:
    await started.wait()
    with pytest.raises(NotBound):
        use_ws_manager()
    return True
