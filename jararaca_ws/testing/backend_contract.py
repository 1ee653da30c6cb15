"""The contract of a WebSocket backend, as checks that run under any test runner.

Each check takes a factory of new backends that reach one another (the same server, say), and raises AssertionError
where a backend breaks the contract. With pytest::

    @pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)
    async def test_my_backend(check):
        await check(make_backend)

A check for something that the backend does not claim to do passes without doing anything. What needs two instances is
checked only where two backends of the factory reach each other (``distributed=True``, the default).
"""

from __future__ import annotations

import asyncio

from jararaca_ws.backends.base import (
    BatchingBackend,
    Publication,
    StartableBackend,
    SubscribingBackend,
    WebSocketConnectionBackend,
)
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.testing.history_contract import HISTORY_CONTRACT
from jararaca_ws.testing.keeping_contract import KEEPING_CONTRACT
from jararaca_ws.testing.limits_contract import LIMITS_CONTRACT
from jararaca_ws.testing.presence_contract import PRESENCE_CONTRACT
from jararaca_ws.testing.recorder import (
    AWKWARD_ROOMS,
    TIMEOUT_S,
    Check,
    MakeBackend,
    Recorder,
    across_instances,
    on_one_instance,
    started,
)

__all__ = ["BACKEND_CONTRACT", "MakeBackend", "Recorder"]


@on_one_instance
async def has_the_four_methods(make: MakeBackend) -> None:
    assert isinstance(make(), WebSocketConnectionBackend)


@on_one_instance
async def a_send_comes_back_to_the_sender(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.subscribe("a")
        await one.backend.send(["a"], b'"hello"')
        await one.until(lambda: bool(one.sent))
        assert one.sent == [(("a",), b'"hello"')]


@on_one_instance
async def a_broadcast_comes_back_to_the_sender(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.backend.broadcast(b'"hello"')
        await one.until(lambda: bool(one.broadcasts))
        assert one.broadcasts == [b'"hello"']
        assert one.sent == []


@on_one_instance
async def sends_stay_in_order(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.subscribe("a", "b")
        expected = [f'"{n}"'.encode() for n in range(300)]
        for n, message in enumerate(expected):
            await one.backend.send(["a"] if n % 3 else ["b", "a"], message)
        await one.until(lambda: len(one.sent) >= len(expected))
        assert one.messages == expected


@on_one_instance
async def a_send_to_several_rooms_is_handed_over_once(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.subscribe("a", "b")
        await one.backend.send(["a", "b"], b'"both"')
        await one.settled()
        assert len(one.sent) == 1, one.sent
        assert sorted(one.sent[0][0]) == ["a", "b"]


@on_one_instance
async def room_names_are_literal(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.subscribe(*AWKWARD_ROOMS, "a", "b", "x")
        for room in AWKWARD_ROOMS:
            await one.backend.send([room], room.encode())
        await one.until(lambda: len(one.sent) >= len(AWKWARD_ROOMS))
        await one.settled()
        assert sorted(one.sent) == sorted(((room,), room.encode()) for room in AWKWARD_ROOMS)


@on_one_instance
async def payloads_are_not_changed(make: MakeBackend) -> None:
    payloads = [b"", b"\n", b"1\n", b'{"a":"\\u0000"}', "größe 日本 🐦".encode(), b"x" * 200_000]
    async with started(make) as [one]:
        await one.subscribe("a")
        for payload in payloads:
            await one.backend.send(["a"], payload)
        await one.until(lambda: len(one.sent) >= len(payloads))
        assert one.messages == payloads


@on_one_instance
async def concurrent_sends_all_arrive(make: MakeBackend) -> None:
    async with started(make) as [one]:
        await one.subscribe("a")
        await asyncio.gather(*(one.backend.send(["a"], b"%d" % n) for n in range(200)))
        await one.until(lambda: len(one.sent) >= 200)
        assert sorted(map(int, one.messages)) == list(range(200))


@on_one_instance
async def after_shutdown_nothing_is_left_and_nothing_is_taken(make: MakeBackend) -> None:
    before = asyncio.all_tasks()
    async with started(make) as [one]:
        await one.subscribe("a")
        await one.backend.send(["a"], b"1")
    assert asyncio.all_tasks() <= before, asyncio.all_tasks() - before
    if isinstance(one.backend, StartableBackend):
        try:
            await one.backend.send(["a"], b"2")
        except BackendUnavailable:
            return
        raise AssertionError("a backend that was shut down swallowed a send")


@on_one_instance
async def can_be_started_again(make: MakeBackend) -> None:
    recorder = Recorder(make())
    for _ in range(2):
        await recorder.start()
        await recorder.subscribe("a")
        recorder.sent.clear()
        await recorder.backend.send(["a"], b"1")
        await recorder.until(lambda: bool(recorder.sent))
        await recorder.stop()
    assert recorder.messages == [b"1"]


@across_instances
async def every_instance_gets_it_once(make: MakeBackend) -> None:
    async with started(make, 3) as instances:
        for instance in instances:
            await instance.subscribe("a", "b")
        await instances[0].backend.send(["a", "b"], b"1")
        await instances[1].backend.broadcast(b"2")
        for instance in instances:
            await instance.until(lambda instance=instance: bool(instance.sent) and bool(instance.broadcasts))  # type: ignore[misc]
            await instance.settled()
            assert instance.messages == [b"1"]
            assert instance.broadcasts[0] == b"2"


@across_instances
async def order_holds_for_each_room_and_sender(make: MakeBackend) -> None:
    async with started(make, 3) as [one, two, reader]:
        await reader.subscribe("a")
        for n in range(100):
            await one.backend.send(["a"], b"one %d" % n)
            await two.backend.send(["a"], b"two %d" % n)
        await reader.until(lambda: len(reader.sent) >= 200)
        for sender in (b"one", b"two"):
            mine = [message for message in reader.messages if message.startswith(sender)]
            assert mine == [b"%s %d" % (sender, n) for n in range(100)]


@across_instances
async def only_subscribed_rooms_arrive(make: MakeBackend) -> None:
    async with started(make, 2) as [one, two]:
        if not isinstance(two.backend, SubscribingBackend):
            return
        await two.subscribe("a", "b")
        await one.backend.send(["a"], b"1")
        await two.until(lambda: bool(two.sent))
        two.backend.unsubscribe(["a"])
        async with asyncio.timeout(TIMEOUT_S):
            # It may take effect later; until then what comes is delivered to nobody.
            while True:
                two.sent.clear()
                await one.backend.send(["a"], b"2")
                await one.backend.send(["b"], b"3")
                await two.until(lambda: b"3" in two.messages)
                if two.messages == [b"3"]:
                    return


@across_instances
async def subscribing_again_at_once_misses_nothing(make: MakeBackend) -> None:
    async with started(make, 2) as [one, two]:
        if not isinstance(two.backend, SubscribingBackend):
            return
        for n in range(20):
            await two.subscribe("a")
            await one.backend.send(["a"], b"%d" % n)
            await two.until(lambda n=n: len(two.sent) > n)  # type: ignore[misc]
            two.backend.unsubscribe(["a"])
        assert two.messages == [b"%d" % n for n in range(20)]


@on_one_instance
async def a_batch_is_sent_in_order(make: MakeBackend) -> None:
    async with started(make) as [one]:
        if not isinstance(one.backend, BatchingBackend):
            return
        await one.subscribe("a", "b")
        await one.backend.send_many(
            [Publication(["a"], b"1", "i1"), Publication(["b", "a"], b"2", "i2"), Publication(["b"], b"3", "i3")]
        )
        await one.until(lambda: len(one.sent) >= 3)
        assert one.messages == [b"1", b"2", b"3"]


BACKEND_CONTRACT: list[Check] = [
    has_the_four_methods,
    a_send_comes_back_to_the_sender,
    a_broadcast_comes_back_to_the_sender,
    sends_stay_in_order,
    a_send_to_several_rooms_is_handed_over_once,
    room_names_are_literal,
    payloads_are_not_changed,
    concurrent_sends_all_arrive,
    after_shutdown_nothing_is_left_and_nothing_is_taken,
    can_be_started_again,
    every_instance_gets_it_once,
    order_holds_for_each_room_and_sender,
    only_subscribed_rooms_arrive,
    subscribing_again_at_once_misses_nothing,
    a_batch_is_sent_in_order,
    *HISTORY_CONTRACT,
    *PRESENCE_CONTRACT,
    *LIMITS_CONTRACT,
    *KEEPING_CONTRACT,
]
"""Every check, in an order in which the first that fails says most."""
