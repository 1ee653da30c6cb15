"""Connections that come back: what they have missed comes first, then what is live, without a hole or a double."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

from jararaca_ws.backends.base import Entry, Replay, StreamPosition
from jararaca_ws.delivering import Hold, LocalDelivery, position_of
from jararaca_ws.delivery import excluded_id
from jararaca_ws.errors import BackendUnavailable, ConnectionClosed
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.recovery.histories import HistoryReads
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.supervision import Backoff
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import CloseCode, encode
from jararaca_ws.wire.retained import NOWHERE, Recovered, RecoveryRequest

__all__ = ["Recoveries"]

_log = logging.getLogger("jararaca_ws")

_PATIENCE = timedelta(seconds=10)
"""How long a recovery waits for a backend that is away, before the client is told to try again."""


class _Recovering:
    """One connection that comes back.

    Attributes:
        jobs: the rooms to recover, one after the other.
        task: does that; None while there is nothing to do.
        deadline: of the client's first frame; None once that has come.
    """

    __slots__ = ("deadline", "jobs", "request", "task")

    def __init__(self, request: RecoveryRequest) -> None:
        self.request = request
        self.jobs: deque[tuple[str, Hold, StreamPosition | None]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.deadline: asyncio.TimerHandle | None = None


class Recoveries:
    """The connections of one instance that come back, and a task for each while it recovers.

    Such a connection gets nothing of what its rooms keep before its first frame has come: the positions that it has.
    The answer for a room follows when the application has joined it, and never otherwise. Where the client has no
    position, what is kept from the join on counts.
    """

    def __init__(self, delivery: LocalDelivery, reads: HistoryReads | None) -> None:
        self._delivery = delivery
        # None where the backend keeps no histories: nobody is recovered, and everybody is told so.
        self._reads = reads
        self._recovering: dict[WebSocketConnection, _Recovering] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- told by the manager ------------------------------------------------------------------------------------------

    def expect(self, connection: WebSocketConnection) -> None:
        """The connection was taken in; if it comes back, wait for its first frame. Safe to call again."""
        request = connection.recovery
        if request is None or connection in self._recovering:
            return
        state = self._recovering[connection] = _Recovering(request)
        if not request.has_come:
            request.on_come = lambda: self._has_come(connection, state)
            timeout_s = connection.settings.recover_timeout.total_seconds()
            state.deadline = asyncio.get_running_loop().call_later(timeout_s, request.come, {})

    def joining(self, room: str, connection: WebSocketConnection) -> None:
        """The connection is about to become a member."""
        state = self._recovering.get(connection)
        if state is not None and (not state.request.has_come or room in state.request.positions):
            self._delivery.hold(room, connection)

    def joined(self, room: str, connection: WebSocketConnection) -> None:
        """Its join is confirmed."""
        here = self._delivery.streams.position(room)
        hold = self._delivery.hold_of(room, connection)
        if hold is None:
            self._tell_position(room, connection, here)
            return
        hold.since = here
        state = self._recovering[connection]
        if state.request.has_come:
            self._begin(room, hold, connection, state)

    def gone(self, connection: WebSocketConnection) -> None:
        """The connection was let go; it has left its rooms."""
        state = self._recovering.pop(connection, None)
        if state is None:
            return
        self._delivery.copies.forget(connection.id)
        if state.deadline is not None:
            state.deadline.cancel()
        state.request.on_come = _too_late
        if state.task is not None:
            state.task.cancel()

    async def stop(self) -> None:
        """Leave no task."""
        for connection in tuple(self._recovering):
            self.gone(connection)
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    # --- what to do ---------------------------------------------------------------------------------------------------

    def _has_come(self, connection: WebSocketConnection, state: _Recovering) -> None:
        if state.deadline is not None:
            state.deadline.cancel()
            state.deadline = None
        for room in self._delivery.held_rooms(connection):
            hold = self._delivery.hold_of(room, connection)
            if hold is not None and hold.since is not None:
                self._begin(room, hold, connection, state)

    def _begin(self, room: str, hold: Hold, connection: WebSocketConnection, state: _Recovering) -> None:
        asked = state.request.positions.pop(room, None)
        here = self._delivery.streams.position(room)
        if asked is None and hold.since == here:  # nothing has come since the join
            self._delivery.release(room, connection)
            self._tell_position(room, connection, here)
            return
        state.jobs.append((room, hold, asked))
        if state.task is None:
            state.task = asyncio.create_task(self._run(connection, state), name=f"recovery-{connection.id}")
            self._tasks.add(state.task)
            state.task.add_done_callback(self._tasks.discard)

    def _tell_position(self, room: str, connection: WebSocketConnection, position: StreamPosition) -> None:
        if position != NOWHERE:
            self._delivery.tell([connection], position_of(room, position))

    # --- doing it -----------------------------------------------------------------------------------------------------

    async def _run(self, connection: WebSocketConnection, state: _Recovering) -> None:
        try:
            while state.jobs:
                room, hold, asked = state.jobs.popleft()
                await _Recovery(self._delivery, self._reads, connection, room, hold).run(asked)
        except ConnectionClosed:
            pass
        except BackendUnavailable as error:
            _log.warning("connection %s cannot be recovered: %s", connection.id, error)
            connection.begin_close(CloseCode.TRY_AGAIN_LATER, "try again later")
        except Exception:
            _log.exception("connection %s could not be recovered", connection.id)
            connection.begin_close(CloseCode.INTERNAL_ERROR, "")
        finally:
            state.task = None
            self._delivery.copies.end_replay(connection.id)


class _Recovery:
    """One room of one connection: the answer, the replay at the pace of the client, and the change to what is live."""

    __slots__ = ("_connection", "_delivery", "_hold", "_reads", "_room")

    def __init__(
        self,
        delivery: LocalDelivery,
        reads: HistoryReads | None,
        connection: WebSocketConnection,
        room: str,
        hold: Hold,
    ) -> None:
        self._delivery = delivery
        self._reads = reads
        self._connection = connection
        self._room = room
        self._hold = hold

    async def run(self, asked: StreamPosition | None) -> None:
        """Recover from the position that the client asked for, or (None) from its join."""
        position, entries = await (self._go_on() if asked is None else self._answer(asked))
        while self._is_held():
            for entry in entries:
                await self._replay(entry)
                position = entry.position
                if not self._is_held():
                    return
            if self._has_caught_up(position):
                return
            replay = await self._read_on(position)
            if not replay.recovered:
                if self._is_held():
                    self._delivery.close_insufficient([self._connection], self._room)
                return
            entries = replay.entries
            if not entries:  # there is nothing beyond, whatever this instance believes
                self._hold.upto = replay.position.offset
                return

    async def _go_on(self) -> tuple[StreamPosition, list[Entry]]:
        """From where the connection joined."""
        since = NOWHERE if self._hold.since is None else self._hold.since
        if since != NOWHERE:
            await self._tell(position_of(self._room, since))
        return since, []

    def _is_held(self) -> bool:
        """Whether the connection is still a member, by the same join."""
        return self._delivery.hold_of(self._room, self._connection) is self._hold

    async def _answer(self, asked: StreamPosition) -> tuple[StreamPosition, list[Entry]]:
        """Say whether everything that was missed follows. Where it continues, and what comes first."""
        replay = await self._read_missed(asked)
        counters = self._delivery.counters
        if replay.recovered:
            counters.recovered += 1
            await self._tell(self._recovered(True, replay.position))
            return asked if replay.entries else replay.position, replay.entries
        counters.not_recovered += 1
        here = self._delivery.streams.position(self._room)
        await self._tell(self._recovered(False, here))
        return here, []

    def _recovered(self, recovered: bool, position: StreamPosition) -> Recovered:
        return Recovered(room=self._room, recovered=recovered, epoch=position.epoch, offset=position.offset)

    async def _read_missed(self, asked: StreamPosition) -> Replay:
        reads = self._reads
        if reads is None:
            return Replay(NOWHERE, [], False)
        replay = await _patiently(lambda: reads.read(self._room, asked, self._connection.settings.max_recovered))
        if asked == NOWHERE and not replay.position.offset:
            return Replay(NOWHERE, [], True)  # there was nothing, and there is nothing
        return self._bounded(replay)

    async def _read_on(self, position: StreamPosition) -> Replay:
        reads = self._reads
        if reads is None:
            return Replay(position, [], True)
        return self._bounded(await _patiently(lambda: reads.read_on(self._room, position)))

    def _bounded(self, replay: Replay) -> Replay:
        """Not more than a connection may hold: where it has stalled, all of it stays in memory until it is closed."""
        if sum(len(entry.payload) for entry in replay.entries) > self._connection.settings.max_recovered_bytes:
            return Replay(replay.position, [], False)
        return replay

    async def _replay(self, entry: Entry) -> None:
        copies, connection = self._delivery.copies, self._connection
        if copies.got(entry.id, connection.id) or excluded_id(entry.payload) == connection.id:
            # It came through another room, or is not for this connection.
            await self._tell(position_of(self._room, entry.position))
            return
        frame = self._delivery.frame_of(self._room, entry)
        if frame is not None:
            copies.add_replayed(entry.id, connection.id)
            await self._put(frame)

    async def _tell(self, control: WebSocketMessageBase) -> None:
        if self._connection.may_be_told:
            await self._put(encode(control))

    async def _put(self, frame: Frame) -> None:
        """Queue a frame, waiting for space; not where the room is left meanwhile: the client may have been told so."""
        while self._is_held() and not self._connection.offer(frame):
            await self._connection.outbound.wait_for_space()

    def _has_caught_up(self, position: StreamPosition) -> bool:
        """Change over, if the room has not come further than the replay. No await: nothing comes in between.

        Offsets alone are compared. A new epoch that goes on from the old one counts on; for any other the whole room is
        closed with 4010.
        """
        here = self._delivery.streams.position(self._room)
        if here.offset > position.offset:
            return False
        if here.offset < position.offset:
            self._hold.upto = position.offset  # the history was ahead of what has arrived here
        else:
            self._delivery.release(self._room, self._connection)
        return True


async def _patiently(read: Callable[[], Awaitable[Replay]]) -> Replay:
    """Read, and try again while the backend is away, for a while."""
    deadline = asyncio.get_running_loop().time() + _PATIENCE.total_seconds()
    for delay in Backoff(max_s=2.0).delays():
        try:
            return await read()
        except BackendUnavailable:
            if asyncio.get_running_loop().time() + delay > deadline:
                raise
        await asyncio.sleep(delay)
    raise AssertionError("the delays never end")


def _too_late() -> None:
    """The connection has gone."""
