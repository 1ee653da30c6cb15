"""Drain on SIGTERM and SIGINT, under a server that would close all of its sockets at once.

An ASGI application learns of the end when it is over: uvicorn closes every socket and then ends the lifespan. So the
handlers of the two signals are taken over while the lifespan lasts, and the server gets its signal when the sockets
have closed. A server that drains by itself (`jararaca_ws.server`) gets it at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.sockets.writing import DIRECT_FRAMES

__all__ = ["drained_on_signals"]

_log = logging.getLogger("jararaca_ws")

_LAST_WORD_S = 0.5
"""What the sockets that were closed last have to take their close frames, before the server gets its signal."""


@asynccontextmanager
async def drained_on_signals(manager: WebSocketConnectionManager, window: timedelta) -> AsyncIterator[None]:
    """Within it, SIGTERM and SIGINT close the manager's sockets before they reach who handled them until now.

    New sockets are refused from then on. The same signal a second time is passed on at once. Outside of the main
    thread nothing happens: only there can signals be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    drain = _Drain(manager, window)
    drain.take_signals()
    try:
        yield
    finally:
        await drain.stop()


class _Drain:
    def __init__(self, manager: WebSocketConnectionManager, window: timedelta) -> None:
        self._manager = manager
        self._window_s = window.total_seconds()
        self._loop = asyncio.get_running_loop()
        # The handlers that were there before, of the signals that we hold.
        self._before: dict[int, Any] = {}
        self._seen: set[int] = set()
        # None until the sockets are closed.
        self._task: asyncio.Task[None] | None = None

    def take_signals(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(signum)
            if self._is_loops(handler):
                _log.debug("the event loop keeps signal %d to itself: it does not drain the sockets", signum)
            elif handler is not None and handler is not signal.SIG_IGN:  # None: it was not set by Python code
                self._before[signum] = handler
                signal.signal(signum, self._received)

    def _is_loops(self, handler: Any) -> bool:
        """Whether `add_signal_handler` set it: asyncio's does nothing, uvloop's is a method of the loop.

        Taking it over would hold nothing back: the loop reads of the signal in a pipe.
        """
        is_noop = getattr(handler, "__module__", None) == "asyncio.unix_events"
        return is_noop or getattr(handler, "__self__", None) is self._loop

    def _received(self, signum: int, frame: Any) -> None:
        """A signal handler: it runs between two steps of the main thread, which may be any of the loop's."""
        self._manager.draining = True
        sockets = [one for one in self._manager.connections if not _is_drained_by_server(one)]
        if signum in self._seen or not sockets:
            self._pass_on(signum)
        elif not self._seen:
            self._loop.call_soon_threadsafe(self._start, signum, sockets)
        # Another signal is no second one: Ctrl-C in a terminal reaches a worker process as SIGINT, and as SIGTERM from
        # its parent.
        self._seen.add(signum)

    def _start(self, signum: int, sockets: Sequence[WebSocketConnection]) -> None:
        if self._before:
            self._task = self._loop.create_task(self._run(signum, sockets), name="websocket-drain")

    async def _run(self, signum: int, sockets: Sequence[WebSocketConnection]) -> None:
        _log.info("draining: %d WebSockets close within %g s", len(sockets), self._window_s)
        try:
            async with asyncio.timeout(self._window_s + _LAST_WORD_S):
                await self._close(sockets)
        except TimeoutError:
            left = sum(not socket.closed.is_set() for socket in sockets)
            _log.warning("draining: %d WebSockets did not take what was written last", left)
        self._pass_on(signum)

    async def _close(self, sockets: Sequence[WebSocketConnection]) -> None:
        """Each at a moment of its own, evenly over the window: their clients do not come back all at once."""
        started = self._loop.time()
        for place, socket in enumerate(random.sample(sockets, len(sockets))):
            due = started + self._window_s * place / len(sockets)
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            socket.begin_shutdown()
        for socket in sockets:
            await socket.closed.wait()

    def _pass_on(self, signum: int) -> None:
        """To whoever handled it before us, as it will be from now on. Only once: the server knows a second signal."""
        if signum in self._before:
            # Also where somebody has taken it over from us and called us: nobody else would pass it on.
            signal.signal(signum, self._before.pop(signum))
            self._return_signals()
            signal.raise_signal(signum)

    def _return_signals(self) -> None:
        for signum, handler in tuple(self._before.items()):
            # One that somebody has taken over from us stays theirs; it comes back to us, and is passed on then.
            if signal.getsignal(signum) == self._received:
                signal.signal(signum, handler)
                del self._before[signum]

    async def stop(self) -> None:
        """Give the signals back, and leave no task."""
        self._return_signals()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _is_drained_by_server(connection: WebSocketConnection) -> bool:
    return DIRECT_FRAMES in connection.scope.get("extensions", {})
