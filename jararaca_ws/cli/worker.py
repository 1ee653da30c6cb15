"""``jararaca-ws worker``: the handlers of the message bus."""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import timedelta

from jararaca_ws.cli.application import load, log_to_stderr, microservice_of, not_an_application
from jararaca_ws.cli.ending import STOPPED
from jararaca_ws.messagebus.worker import MessageBusWorker

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Work until a signal comes; returns the exit code."""
    app = load(arguments.target, arguments.app_dir)
    microservice = microservice_of(app)
    if microservice is None:
        raise not_an_application(arguments.target, app)
    log_to_stderr(arguments.log_level)
    asyncio.run(_work(MessageBusWorker(microservice, grace=timedelta(seconds=arguments.grace))))
    return STOPPED


async def _work(worker: MessageBusWorker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_on_first(signum: int) -> None:
        stop.set()
        # A second one ends the process at once.
        loop.remove_signal_handler(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop_on_first, signum)
    await worker.run(stop)
