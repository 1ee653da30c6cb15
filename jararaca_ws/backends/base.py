"""What a backend is: four methods that every backend has, and small protocols for what some can do beyond.

A backend carries frames between instances. It never sees a socket: delivery to the connections of an instance
belongs to the manager. The small protocols are looked for once, at start-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

__all__ = [
    "BatchingBackend",
    "BroadcastFunc",
    "GapFunc",
    "GapReportingBackend",
    "SendFunc",
    "StartableBackend",
    "SubscribingBackend",
    "WebSocketConnectionBackend",
]


class BroadcastFunc(Protocol):
    """Delivers a frame to every connection of this instance. Never waits on a socket."""

    async def __call__(self, message: bytes) -> None: ...


class SendFunc(Protocol):
    """Delivers a frame to the connections of this instance that are in any of the rooms, to each once.

    Never waits on a socket. Rooms that have no member here cost next to nothing.
    """

    async def __call__(self, rooms: list[str], message: bytes) -> None: ...


class GapFunc(Protocol):
    """Says that frames may have been missed, once the backend receives again. Synchronous."""

    def __call__(self, rooms: Collection[str], *, broadcasts: bool) -> None:
        """Report one loss: the rooms concerned, and whether broadcasts are."""
        ...


@runtime_checkable
class WebSocketConnectionBackend(Protocol):
    """Carries frames to every instance, the sending one included: local delivery too comes back this way.

    Guarantee asked of a backend: at most once, in order for each room and sender. Frames are complete UTF-8 JSON
    texts, at most as long as the outbound queue of a connection.
    """

    async def broadcast(self, message: bytes) -> None:
        """Carry a frame to every connection of every instance.

        Raises:
            BackendUnavailable: it was not accepted. Never swallowed.
        """
        ...

    async def send(self, rooms: list[str], message: bytes) -> None:
        """Carry a frame to the connections in any of the rooms; each gets it once.

        Raises:
            BackendUnavailable: it was not accepted. Never swallowed.
        """
        ...

    def configure(self, broadcast: BroadcastFunc, send: SendFunc, shutdown_event: asyncio.Event) -> None:
        """Called once per start, in the running loop, before anything else.

        Args:
            broadcast: to call for each broadcast that arrives.
            send: to call for each frame to rooms that arrives.
            shutdown_event: set when the manager stops, before `shutdown` is called.
        """
        ...

    async def shutdown(self) -> None:
        """Leave no task and no connection behind. Called once per start."""
        ...


@runtime_checkable
class StartableBackend(Protocol):
    """A backend that has to be up before the application serves."""

    async def start(self) -> None:
        """Called after ``configure``.

        Raises:
            BackendUnavailable: it cannot be reached; the application does not start.
        """
        ...


@runtime_checkable
class SubscribingBackend(Protocol):
    """A backend that carries to an instance only the rooms in which the instance has members."""

    async def subscribe(self, rooms: Collection[str]) -> None:
        """Returns when everything sent to the rooms from now on will arrive here. At once for rooms that it has.

        Raises:
            BackendUnavailable: not confirmed within the backend's timeout. The manager gives the rooms back.
        """
        ...

    def unsubscribe(self, rooms: Collection[str]) -> None:
        """Give rooms back. Returns at once and takes effect later; may be undone by `subscribe` before that."""
        ...


@runtime_checkable
class BatchingBackend(Protocol):
    """A backend that takes several sends in one go, as cheaply as one."""

    async def send_many(self, sends: Sequence[tuple[list[str], bytes]]) -> None:
        """`send` for each, in order.

        Raises:
            BackendUnavailable: at least one was not accepted; others may have been.
        """
        ...


@runtime_checkable
class GapReportingBackend(Protocol):
    """A backend that knows when it may have missed something."""

    def on_gap(self, report: GapFunc) -> None:
        """Called after ``configure``. From then on ``report`` is called once for each loss."""
        ...
