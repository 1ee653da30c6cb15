"""What a backend is: four methods that every backend has, and small protocols for what some can do beyond.

A backend carries frames between instances. It never sees a socket: delivery to the connections of an instance
belongs to the manager. The small protocols are looked for once, at start-up; those for presence and for limits stand in
modules of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = [
    "BatchingBackend",
    "CountingBackend",
    "BroadcastFunc",
    "Entry",
    "EntryFunc",
    "GapFunc",
    "GapReportingBackend",
    "HistoryBackend",
    "KeepingBackend",
    "Publication",
    "Replay",
    "Retention",
    "SendFunc",
    "StartableBackend",
    "StreamPosition",
    "SubscribingBackend",
    "WebSocketConnectionBackend",
]


class StreamPosition(NamedTuple):
    """A place in a room's history.

    Attributes:
        epoch: changes when offsets may have been given twice: the history was lost, or the server that keeps it was
            restarted.
        offset: of the newest message at this place; without holes, from 1. 0: before the first.
    """

    epoch: str
    offset: int


class Retention(NamedTuple):
    """How much of a room's history is kept.

    Attributes:
        size: at most so many messages.
        ttl_ms: for so many milliseconds after the last one.
    """

    size: int
    ttl_ms: int


class Publication(NamedTuple):
    """A checked and encoded message on its way to rooms.

    Attributes:
        rooms: each once; at least one.
        payload: what the backend carries.
        id: unique for each send. A second try has the id of the first, and reaches nobody who got that.
        retention: None where the rooms keep no history of it.
        is_keyed: whether the sender itself may come again with this id, much later: a bus message that is delivered
            twice, say. Then the backend remembers it for minutes, otherwise for as long as it tries by itself.
    """

    rooms: list[str]
    payload: bytes
    id: str
    retention: Retention | None = None
    is_keyed: bool = False


class Entry(NamedTuple):
    """A message as a room's history keeps it."""

    position: StreamPosition
    id: str
    payload: bytes


class Replay(NamedTuple):
    """What a history says.

    Attributes:
        position: of the newest message; offset 0 where there was none yet.
        entries: the oldest first. Empty unless ``recovered``.
        recovered: whether the entries are all that came after the position that was asked for, without a hole.
    """

    position: StreamPosition
    entries: list[Entry]
    recovered: bool


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

    Guarantee asked of a backend: at most once, in order for each room and sender. What it carries are bytes that mean
    nothing to it: most are UTF-8 JSON texts, some are marked by a control character before that, and rooms of our own
    begin with one. They are little longer than the outbound queue of a connection.
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
class CountingBackend(Protocol):
    """A backend that knows how many instances there are."""

    async def subscribers(self, room: str) -> int:
        """How many instances receive a room, this one included.

        Raises:
            BackendUnavailable: nobody knows.
        """
        ...


@runtime_checkable
class BatchingBackend(Protocol):
    """A backend that takes several sends in one go, as cheaply as one, and knows a second try by its id."""

    async def send_many(self, publications: Sequence[Publication]) -> None:
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


class EntryFunc(Protocol):
    """Delivers a message that a room's history keeps to the members of that room on this instance.

    Never waits on a socket. Called once for each room of the publication that this instance is subscribed to; it is
    given all of the publication's rooms too, because who is in several of them gets the message once.
    """

    async def __call__(self, room: str, entry: Entry, rooms: Sequence[str]) -> None: ...


@runtime_checkable
class HistoryBackend(Protocol):
    """A backend that keeps what is published with a `Retention`, in each room apart.

    Appending and publishing are one step: a room's offsets have no holes, and arrive in their order.
    """

    def on_entry(self, deliver: EntryFunc) -> None:
        """Called after ``configure``. From then on ``deliver`` gets what is kept, in place of `SendFunc`."""
        ...

    async def history(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        """Read what came after ``since``, all or none: more than ``limit`` entries are none.

        Where ``since`` is None: the newest ``limit`` entries of those that are kept.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        ...

    async def positions(self, rooms: Sequence[str]) -> list[StreamPosition | None]:
        """The newest position of each room; None for a room that has never kept anything, or not for very long.

        Raises:
            BackendUnavailable: they cannot be read.
        """
        ...


@runtime_checkable
class KeepingBackend(Protocol):
    """A backend that keeps small values for a while, for all instances: what was revoked, and tickets.

    Every method raises `BackendUnavailable` where it could not be done, or nobody knows whether it was.
    """

    async def keep(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Keep a value, in place of the one before. When it returns, every instance sees it.

        Where the one before was to be kept for longer, this one is.
        """
        ...

    async def kept(self, keys: Sequence[str]) -> list[bytes | None]:
        """The value of each key; None where there is none, or not any more."""
        ...

    async def take(self, key: str) -> bytes | None:
        """The value, which is gone then: of several that ask at the same time one gets it, or, at worst, none."""
        ...
