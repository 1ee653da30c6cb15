"""Two instances of one application in one process, over a backend that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from jararaca_ws.backends.base import BroadcastFunc, SendFunc, WebSocketConnectionBackend
from jararaca_ws.manager import WebSocketConnectionManager
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.played import Socket, serving, until, until_closed

MakeBackend = Callable[[], WebSocketConnectionBackend]


class HubBackend:
    """The four methods, as a user may have written them, and a list in place of a server."""

    def __init__(self, hub: list[HubBackend]) -> None:
        self.hub = hub

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        self._broadcast, self._send = broadcast, send
        self.hub.append(self)

    async def broadcast(self, message: bytes) -> None:
        for other in self.hub:
            await other._broadcast(message)

    async def send(self, rooms: list[str], message: bytes) -> None:
        for other in self.hub:
            await other._send(rooms, message)

    async def shutdown(self) -> None:
        self.hub.remove(self)


class Cluster:
    """Instances, and sockets on them.

    Attributes:
        managers: one for each instance.
    """

    def __init__(self, managers: list[WebSocketConnectionManager], stack: AsyncExitStack) -> None:
        self.managers = managers
        self._stack = stack

    async def socket(self, instance: int, *rooms: str, user: str | None = None, v1: bool = False) -> Socket:
        """A socket on one of the instances, that has identified itself and joined."""
        manager = self.managers[instance]
        socket = await self._stack.enter_async_context(
            serving(
                until_closed,
                manager=manager,
                settings=manager.settings,
                subprotocols=[SUBPROTOCOL] if v1 else [],
            )
        )
        await until(lambda: socket.connection in manager.connections)
        if user is not None:
            await socket.connection.identify(user)
        if rooms:
            await socket.connection.join(*rooms)
        return socket


@asynccontextmanager
async def cluster(*managers: WebSocketConnectionManager) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        for manager in managers:
            await stack.enter_async_context(manager)
        yield Cluster(list(managers), stack)
