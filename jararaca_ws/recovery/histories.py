"""Reading the histories that the backend keeps: each question asked once, however many ask it at one time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from jararaca_ws.backends.base import HistoryBackend, Replay, StreamPosition
from jararaca_ws.delivery import MAX_HISTORY
from jararaca_ws.recovery.streams import Stream, Streams
from jararaca_ws.wire.retained import NOWHERE

__all__ = ["HistoryReads", "PositionReads"]

_AT_ONCE = 16
"""How many histories are read side by side: an instance that thousands come back to does not swamp the server."""

_Question = tuple[str, StreamPosition | None, int]


class HistoryReads:
    """Reads of one history after one position are shared by all who wait for it."""

    def __init__(self, backend: HistoryBackend) -> None:
        self._backend = backend
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._under_way: dict[_Question, asyncio.Future[Replay]] = {}

    async def read(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        """What came after ``since``, all or none. It may have been read a moment ago, for somebody else.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        question = (room, since, limit)
        while (answer := self._under_way.get(question)) is not None:
            await asyncio.wait([answer])
            if not answer.cancelled():  # else whoever read it was cancelled: we read it ourselves
                return answer.result()
        return await self._ask(question)

    async def _ask(self, question: _Question) -> Replay:
        answer = self._under_way[question] = asyncio.get_running_loop().create_future()
        try:
            replay = await self._read_now(*question)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        except Exception as error:
            answer.set_exception(error)
            answer.exception()  # retrieved, also where nobody else waits
            raise
        finally:
            del self._under_way[question]
        answer.set_result(replay)
        return replay

    async def _read_now(self, room: str, since: StreamPosition | None, limit: int) -> Replay:
        async with self._slots:
            return await self._backend.history(room, since, limit)

    async def read_on(self, room: str, position: StreamPosition) -> Replay:
        """What has come until now after a position at which this instance has been itself. Not shared.

        At `NOWHERE` nothing had been kept when it was there: then what is kept now is what came since, if it is there
        from its first message on.

        Raises:
            BackendUnavailable: it cannot be read.
        """
        replay = await self._read_now(room, position, MAX_HISTORY)
        if position != NOWHERE or replay.recovered:
            return replay
        if replay.position.offset == 0:
            return Replay(NOWHERE, [], True)
        return await self._read_now(room, StreamPosition(replay.position.epoch, 0), MAX_HISTORY)


class PositionReads:
    """Finds out where rooms are that an instance has just been subscribed to.

    One read at a time: who comes while one is under way is in the next one, together with all the others.
    """

    def __init__(self, backend: HistoryBackend, streams: Streams) -> None:
        self._backend = backend
        self._streams = streams
        # With its stream, because a room that is left and joined again has another one: not subscribed yet, maybe.
        self._wanted: dict[str, Stream] = {}
        # None while nobody reads.
        self._reading: asyncio.Future[None] | None = None

    async def track(self, rooms: Iterable[str]) -> None:
        """Return when the position of each room is known. Called when the rooms are subscribed.

        Raises:
            BackendUnavailable: they cannot be read.
        """
        tracked = {room: stream for room in rooms if (stream := self._streams.get(room)) is not None}
        while unknown := {room: stream for room, stream in tracked.items() if self._is_unknown(room, stream)}:
            self._wanted.update(unknown)
            if self._reading is not None:
                reading = self._reading
                await asyncio.wait([reading])
                if unknown.keys().isdisjoint(self._wanted):  # our rooms were in it
                    reading.result()
            else:
                await self._lead()

    def _is_unknown(self, room: str, stream: Stream) -> bool:
        return stream.position is None and self._streams.get(room) is stream

    async def _lead(self) -> None:
        """Read for all who want to know; a reader that is cancelled leaves it to the next one."""
        reading = self._reading = asyncio.get_running_loop().create_future()
        try:
            await self._read()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            reading.set_exception(error)
            reading.exception()
            raise
        finally:
            self._reading = None
            if not reading.done():
                reading.set_result(None)

    async def _read(self) -> None:
        wanted, self._wanted = self._wanted, {}
        asked = {room: stream for room, stream in wanted.items() if self._is_unknown(room, stream)}
        gaps = self._streams.gaps
        positions = await self._backend.positions(list(asked)) if asked else []
        if self._streams.gaps != gaps:
            return  # read before the link was lost, so it says too little: those who wait read again
        for (room, stream), position in zip(asked.items(), positions, strict=True):
            if self._is_unknown(room, stream):
                stream.position = position or NOWHERE
