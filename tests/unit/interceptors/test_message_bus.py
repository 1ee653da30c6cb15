from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import HTTPException, Request, WebSocket

from jararaca_ws.context import use_publisher
from jararaca_ws.errors import BrokerUnavailable, ConfigurationError, MessageNotEncodable, NotBound, UnitOfWorkOver
from jararaca_ws.interceptors.base import (
    AppTransactionContext,
    HttpTransactionData,
    MessageBusTransactionData,
    TransactionData,
    WebSocketTransactionData,
)
from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
from jararaca_ws.messagebus import MemoryMessageBus, Message, MessageBusController, MessageHandler
from jararaca_ws.messagebus.publisher import EncodedMessage, encode
from jararaca_ws.microservice import Microservice, MicroserviceRuntime, Post, RestController, create_http_server


class Placed(Message):
    MESSAGE_TOPIC = "orders.placed"

    number: int = 0


class RecordingBus:
    """Takes what it is given, in memory, and consumes nothing."""

    embedded = False
    max_message_bytes = 100

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.fails = False

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")

    async def publish(self, message: Message) -> None:
        await self.publish_all([encode(message)])

    async def publish_all(self, messages: Sequence[EncodedMessage]) -> None:
        if self.fails:
            raise BrokerUnavailable("it is away")
        self.log.append([message.body for message in messages])

    async def consume(self, *_: Any, **__: Any) -> None:
        self.log.append("consume")

    async def stop_consuming(self, grace: timedelta) -> None:
        self.log.append("stop_consuming")


HTTP = HttpTransactionData(request=Request({"type": "http"}))
BUS = MessageBusTransactionData(topic="t", message=None, message_id="m", attempt=1)
SOCKET = WebSocketTransactionData(
    websocket=WebSocket({"type": "websocket"}, receive=lambda: None, send=lambda _: None)  # type: ignore[arg-type]
)


def unit(bus: RecordingBus, data: TransactionData) -> AbstractAsyncContextManager[None]:
    context = AppTransactionContext(transaction_data=data, controller=object, handler=print)
    return MessageBusInterceptor(bus=bus).intercept(context)


@pytest.mark.parametrize("data", [HTTP, BUS])
async def test_publishes_leave_together_in_order_at_the_end(data: TransactionData) -> None:
    bus = RecordingBus()
    async with unit(bus, data):
        message = Placed(number=1)
        await message.publish()
        message.number = 99
        await Placed(number=2).publish()
        assert bus.log == []
    assert bus.log == [[b'{"number":1}', b'{"number":2}']]


@pytest.mark.parametrize("data", [HTTP, BUS])
async def test_a_failed_unit_of_work_publishes_nothing(data: TransactionData) -> None:
    bus = RecordingBus()

    async def work() -> None:
        async with unit(bus, data):
            await Placed().publish()
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await work()
    assert bus.log == []


async def test_publish_now_does_not_wait() -> None:
    bus = RecordingBus()
    async with unit(bus, HTTP):
        await Placed(number=3).publish_now()
        assert bus.log == [[b'{"number":3}']]


async def test_in_a_websocket_handler_a_publish_leaves_at_once() -> None:
    bus = RecordingBus()
    async with unit(bus, SOCKET):
        await Placed(number=1).publish()
        assert bus.log == [[b'{"number":1}']]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_handler_of_a_client_s_message_publishes_is_staged(fails: bool) -> None:
    bus = RecordingBus()
    with suppress(ValueError):
        async with unit(bus, replace(SOCKET, message=object())):
            await Placed(number=1).publish()
            assert bus.log == []
            if fails:
                raise ValueError
    assert bus.log == ([] if fails else [[b'{"number":1}']])


async def test_a_message_that_cannot_be_encoded_is_refused_at_the_call() -> None:
    class Long(Placed):
        text: str = "x" * 200

    bus = RecordingBus()
    async with unit(bus, HTTP):
        with pytest.raises(MessageNotEncodable, match="takes"):
            await Long().publish()
    assert bus.log == []


async def test_a_task_that_outlives_its_unit_of_work_is_told_what_to_do() -> None:
    bus = RecordingBus()
    over = asyncio.Event()

    async def late() -> None:
        await over.wait()
        await Placed().publish()

    async with unit(bus, HTTP):
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    over.set()
    with pytest.raises(UnitOfWorkOver, match="publish_now"):
        await task
    with pytest.raises(NotBound):
        use_publisher()


async def test_concurrent_units_of_work_never_see_each_others_messages() -> None:
    bus = RecordingBus()
    both = asyncio.Barrier(2)

    async def work(number: int) -> None:
        async with unit(bus, HTTP):
            await Placed(number=number).publish()
            await both.wait()
            if number == 1:
                raise ValueError("fails")

    results = await asyncio.gather(work(1), work(2), return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert bus.log == [[b'{"number":2}']]


async def test_a_bus_that_is_elsewhere_is_started_and_not_consumed() -> None:
    bus = RecordingBus()
    async with MicroserviceRuntime(Microservice(interceptors=[MessageBusInterceptor(bus=bus)])).lifespan():
        assert bus.log == ["start"]
    assert bus.log == ["start", "stop"]


async def test_a_mistake_in_a_handler_shows_when_the_server_starts() -> None:
    class Forgotten:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None: ...

    bus = RecordingBus()
    microservice = Microservice(controllers=[Forgotten], interceptors=[MessageBusInterceptor(bus=bus)])
    with pytest.raises(ConfigurationError, match="Forgotten"):
        async with MicroserviceRuntime(microservice).lifespan():
            pytest.fail("it started")
    assert bus.log == ["start", "stop"]


@RestController("/orders")
class Orders:
    @Post("/{number}")
    async def place(self, number: int) -> int:
        await Placed(number=number).publish()
        if number == 13:
            raise HTTPException(409)
        return number


async def test_a_rest_controller_publishes_to_a_handler_in_the_serving_process() -> None:
    seen: list[int] = []

    @MessageBusController()
    class Handlers:
        @MessageHandler(Placed)
        async def handle(self, message: Placed) -> None:
            seen.append(message.number)

    bus = MemoryMessageBus()
    app = create_http_server(
        Microservice(controllers=[Orders, Handlers], interceptors=[MessageBusInterceptor(bus=bus)])
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        statuses = [(await client.post(f"/orders/{number}")).status_code for number in (1, 13, 2)]
        await bus.join()
    assert statuses == [200, 409, 200]
    assert seen == [1, 2]


async def test_a_request_whose_publish_fails_is_answered_with_503() -> None:
    bus = RecordingBus()
    bus.fails = True
    app = create_http_server(Microservice(controllers=[Orders], interceptors=[MessageBusInterceptor(bus=bus)]))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        response = await client.post("/orders/1")
    assert response.status_code == 503
    assert "message broker is unavailable" in response.text
