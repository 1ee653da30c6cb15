"""What an instance has missed of a room's history is read and delivered, in order, before anything newer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from itertools import islice

from jararaca_ws.backends.base import Entry, HistoryBackend, StreamPosition
from jararaca_ws.delivering import LocalDelivery
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.recovery.histories import HistoryReads
from jararaca_ws.recovery.streams import Stream
from jararaca_ws.supervision import Backoff, Supervised
from jararaca_ws.wire.retained import NOWHERE

__all__ = ["Healer"]

_log = logging.getLogger("jararaca_ws")

_ROOMS_AT_ONCE = 256
_SIDE_BY_SIDE = 16

_TURN_BYTES = 128 * 1024
"""What is delivered before the writers get a turn: a long hole does not make slow consumers of fast ones."""

_TURN_S = 0.005

_ENTRY_OVERHEAD = 512
"""Of one entry in a queue: its frame is longer than its payload, and where it is a second copy its position is told."""


class Healer:
    """One for each manager. Its task, which runs from the first hole on, reads; the backend's reader never waits.

    While the backend cannot be read it tries again, with backoff; the entries of the rooms concerned wait, or are read
    as well in the end.
    """

    def __init__(self, backend: HistoryBackend, reads: HistoryReads, delivery: LocalDelivery) -> None:
        self._backend = backend
        self._reads = reads
        self._delivery = delivery
        self._streams = delivery.streams
        # A dict because a set has no order.
        self._rooms: dict[str, None] = {}
        self._wanted = asyncio.Event()
        # Rooms are read side by side and delivered one after the other: a connection may be in all of them.
        self._delivering = asyncio.Lock()
        self._turn = 0
        self._task = Supervised("websocket-healer", self._work, Backoff(max_s=2.0))

    @property
    def healthy(self) -> bool:
        """Whether there is nothing to heal, or the healing goes on."""
        return not self._rooms or self._task.healthy

    def heal(self, rooms: Collection[str]) -> None:
        """Entries of these rooms may be missing. Their streams let nothing newer through until they are here."""
        if rooms:
            self._rooms.update(dict.fromkeys(rooms))
            self._wanted.set()
            self._task.start()

    async def stop(self) -> None:
        await self._task.stop()
        self._rooms.clear()

    async def _work(self, task: Supervised) -> None:
        while True:
            if not self._rooms:
                task.mark_healthy()
                self._wanted.clear()
                await self._wanted.wait()
            await self._heal_some()
            task.mark_healthy()

    async def _heal_some(self) -> None:
        rooms = await self._behind(list(islice(self._rooms, _ROOMS_AT_ONCE)))
        for start in range(0, len(rooms), _SIDE_BY_SIDE):
            some = rooms[start : start + _SIDE_BY_SIDE]
            async with asyncio.TaskGroup() as tasks:
                healing = [tasks.create_task(self._heal(room)) for room in some]
            failed = next((error for task in healing if (error := task.result()) is not None), None)
            if failed is not None:
                raise failed

    async def _behind(self, rooms: list[str]) -> list[str]:
        """Those that have missed something. After a lost link most have not, and one read tells of them all."""
        if len(rooms) == 1:
            return rooms
        streams = [self._streams.get(room) for room in rooms]
        positions = await self._backend.positions(rooms)
        for room, stream, position in zip(rooms, streams, positions, strict=True):
            # What waits came after the link was restored, and the positions were read after that.
            here = position or NOWHERE
            if stream is not None and stream is self._streams.get(room) and stream.position == here:
                self._resume(room, stream, here)
        return [room for room in rooms if self._is_ill(room)]

    def _is_ill(self, room: str) -> bool:
        stream = self._streams.get(room)
        if stream is None or not stream.is_healing:
            self._rooms.pop(room, None)
            return False
        return True

    async def _heal(self, room: str) -> BackendUnavailable | None:
        while self._is_ill(room):
            stream = self._streams.get(room)
            assert stream is not None
            try:
                await self._catch_up(room, stream)
            except BackendUnavailable as error:
                return error
            except Exception:
                _log.exception("the history of a room cannot be read (%r)", room)
                self._give_up(room, stream, stream.position or NOWHERE)
        return None

    async def _catch_up(self, room: str, stream: Stream) -> None:
        before = stream.position or NOWHERE
        replay = await self._reads.read_on(room, before)
        if self._streams.get(room) is not stream:
            return
        if not replay.recovered:
            self._give_up(room, stream, replay.position)
        elif await self._deliver(room, stream, replay.entries):
            self._resume(room, stream, replay.position)
            if stream.has_waiting and stream.position == before:
                # What waits is in no history, now that it was read again: nobody whom we know has sent it.
                self._delivery.counters.dropped += stream.forget_waiting()

    async def _deliver(self, room: str, stream: Stream, entries: list[Entry]) -> bool:
        """Deliver what was missed, in turns; False where the room has lost its last member meanwhile."""
        async with self._delivering:
            for entry in entries:
                if self._streams.get(room) is not stream:
                    return False
                stream.position = entry.position
                self._delivery.deliver_entry(room, entry, has_copies=True)
                self._delivery.counters.healed += 1
                await self._take_turns(len(entry.payload) + _ENTRY_OVERHEAD)
        return self._streams.get(room) is stream

    async def _take_turns(self, size: int) -> None:
        self._turn += size
        if self._turn >= _TURN_BYTES:
            self._turn = 0
            await asyncio.sleep(_TURN_S)

    def _resume(self, room: str, stream: Stream, position: StreamPosition) -> None:
        for entry in stream.resume(position):
            self._delivery.deliver_entry(room, entry, has_copies=True)

    def _give_up(self, room: str, stream: Stream, position: StreamPosition) -> None:
        self._delivery.close_insufficient(self._delivery.rooms.members(room), room)
        self._resume(room, stream, position)
        stream.forget_waiting()
