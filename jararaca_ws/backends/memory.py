"""The embedded default: one process, no server."""

from __future__ import annotations

import asyncio

from jararaca_ws.backends.base import BroadcastFunc, SendFunc
from jararaca_ws.errors import BackendUnavailable

__all__ = ["MemoryWebSocketConnectionBackend"]


class MemoryWebSocketConnectionBackend:
    """Carries frames within this process only: for development, tests, and applications of one instance.

    In order, and nothing is ever missed; nothing reaches another process.
    """

    def __init__(self) -> None:
        # None before configure and after shutdown.
        self._broadcast: BroadcastFunc | None = None
        self._send: SendFunc | None = None

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._broadcast = broadcast
        self._send = send

    async def broadcast(self, message: bytes) -> None:
        if self._broadcast is None:
            raise BackendUnavailable("it is not running")
        await self._broadcast(message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        if self._send is None:
            raise BackendUnavailable("it is not running")
        await self._send(rooms, message)

    async def shutdown(self) -> None:
        self._broadcast = self._send = None
