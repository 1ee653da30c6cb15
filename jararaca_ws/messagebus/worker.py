"""The process that runs message handlers."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.messagebus.attempt import Dispatcher
from jararaca_ws.messagebus.controllers import collect_handlers
from jararaca_ws.messagebus.publisher import MessageBus
from jararaca_ws.microservice import Microservice, MicroserviceRuntime

__all__ = ["MessageBusWorker"]

_log = logging.getLogger("jararaca_ws")


class MessageBusWorker:
    """Runs the message handlers of a microservice, with its interceptors around each message.

    Args:
        microservice: its interceptors hold the one with the bus.
        grace: how long running handlers may take to finish when the worker is stopped; then they are cancelled and
            their messages go back to the queue.
    """

    def __init__(self, microservice: Microservice, grace: timedelta = timedelta(seconds=30)) -> None:
        self._microservice = microservice
        self._grace = grace

    async def run(self, stop: asyncio.Event) -> None:
        """Handle messages until ``stop`` is set, then finish what runs and return.

        A broker that goes away meanwhile is waited for. Cancelling ends the running handlers at once; their messages
        go back to the queue.

        Raises:
            ConfigurationError: there is nothing to handle, or no bus to handle it from.
            Unavailable: a server cannot be reached at the start.
        """
        runtime = MicroserviceRuntime(self._microservice)
        handlers = collect_handlers(runtime.controllers)
        if not handlers:
            raise ConfigurationError(
                f"the microservice {runtime.name!r} has no message handlers, so a worker has nothing to do",
                "list a @MessageBusController with a @MessageHandler in its controllers",
            )
        async with runtime.lifespan():
            bus = _bus_of(runtime)
            try:
                await bus.consume(handlers, Dispatcher(runtime), service=runtime.name)
                _log.info("%s consumes with %s", runtime.name, ", ".join(handler.name for handler in handlers))
                await stop.wait()
                _log.info("%s finishes what runs, for %s at most", runtime.name, self._grace)
                await bus.stop_consuming(self._grace)
            finally:
                await bus.stop_consuming(timedelta(0))


def _bus_of(runtime: MicroserviceRuntime) -> MessageBus:
    found: list[object] = [getattr(interceptor, "bus", None) for interceptor in runtime.interceptors]
    buses = [bus for bus in found if isinstance(bus, MessageBus)]
    if len(buses) != 1:
        raise ConfigurationError(
            f"the microservice {runtime.name!r} has {len(buses)} message buses among its interceptors",
            "put exactly one MessageBusInterceptor into them",
        )
    if buses[0].embedded:
        raise ConfigurationError(
            f"the messages of {type(buses[0]).__name__} never leave the serving process, so a worker gets none",
            "its handlers run in `jararaca-ws serve`; a worker needs a MessageBusInterceptor with a RabbitMQMessageBus",
        )
    return buses[0]
