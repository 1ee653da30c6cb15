"""The message bus in the interceptor chain: where the bus and the microservice stack meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar

from jararaca_ws.context import MessagePublisher, provide_bus, provide_publisher
from jararaca_ws.errors import ConfigurationError
from jararaca_ws.health import Health, ReportsHealth
from jararaca_ws.interceptors.base import HANDLER_MARK, AppTransactionContext, Runtime, is_endpoint
from jararaca_ws.messagebus.attempt import Dispatcher
from jararaca_ws.messagebus.controllers import collect_handlers
from jararaca_ws.messagebus.publisher import EncodedMessage, MessageBus, StagedPublisher
from jararaca_ws.staging import Stage, Staged

__all__ = ["MessageBusInterceptor"]


class MessageBusInterceptor:
    """Makes ``await message.publish()`` work in a microservice's controllers and handlers.

    In an HTTP request and in a message handler, what is published is held until the unit of work succeeds, then
    published in order and confirmed; when the unit fails, nothing is published. A publish that fails there fails the
    unit of work: HTTP answers 503, a message is retried. So it is with each message that a `Receive` method handles; in
    a WebSocket endpoint itself a publish leaves at once.

    Interceptors nest like ``async with``, so of two that hold something until the end, the one that is listed first
    flushes last. A database session listed after this one commits before the messages leave.

    With a bus whose messages live in this process (`MemoryMessageBus`), the message handlers run in the serving
    process; with any other they run in ``jararaca-ws worker``.

    Args:
        bus: is started and stopped with the application.
        grace: how long running handlers may take to finish at shutdown, where they run in the serving process.
    """

    serves: ClassVar[str] = HANDLER_MARK

    def __init__(self, bus: MessageBus, grace: timedelta = timedelta(seconds=10)) -> None:
        if not isinstance(bus, MessageBus):
            # Not what it is: it may be a URL, with its password.
            problem = f"MessageBusInterceptor was given a {type(bus).__name__}, which is not a message bus"
            raise ConfigurationError(problem, "pass MemoryMessageBus() or RabbitMQMessageBus(url)")
        self.bus = bus
        self._grace = grace

    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        await self.bus.start()
        try:
            yield
        finally:
            await self.bus.stop()

    def health(self) -> Sequence[Health]:
        """How well the bus is; nothing of a bus that does not say."""
        return self.bus.health() if isinstance(self.bus, ReportsHealth) else []

    @asynccontextmanager
    async def working(self, runtime: Runtime) -> AsyncIterator[None]:
        # Collected for every bus: a mistake in a handler shows when the server starts, not only in the worker.
        handlers = collect_handlers(runtime.controllers)
        if not self.bus.embedded:
            yield
            return
        await self.bus.consume(handlers, Dispatcher(runtime), service=runtime.name)
        try:
            yield
        finally:
            await self.bus.stop_consuming(self._grace)

    def intercept(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]:
        bus = self.bus
        stage: Stage[EncodedMessage] | None = None
        publisher: MessagePublisher = bus
        if not is_endpoint(app_context.transaction_data):
            stage = Stage("a message was published", "use `await message.publish_now()` there")
            publisher = StagedPublisher(stage, bus.max_message_bytes)
        return Staged(stage, bus.publish_all, provide_bus(bus), provide_publisher(publisher))
