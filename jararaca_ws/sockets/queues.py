"""The two bounded queues of a connection: what waits to be written to it, and what was read from it.

Most connections are idle, so no deque is made before it is needed: an empty one takes 760 bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from jararaca_ws.sockets.waiting import Waiters
from jararaca_ws.wire.frames import Frame

__all__ = ["InboundQueue", "OutboundQueue"]


class OutboundQueue:
    """Frames that wait for the writer, bounded in bytes.

    Appending is synchronous and never waits, so that delivery to many connections is one loop without an await.

    Attributes:
        size: bytes queued, the overhead of each frame included.
        conflated: frames that a newer one with the same key has replaced.
        evicted: frames that were dropped for newer ones.
    """

    __slots__ = ("_frames", "_latest", "_space", "_stale", "conflated", "evicted", "limit_bytes", "size")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size = 0
        self.conflated = 0
        self.evicted = 0
        # These three are None while they would be empty.
        self._frames: deque[Frame] | None = None
        # By key, the queued frame that is the newest. Frames that were replaced stay in the deque until they are
        # reached, or until they are the most of it; they are told by their id, because a frame is shared by queues.
        self._latest: dict[str, Frame] | None = None
        self._stale: set[int] | None = None
        self._space = Waiters()

    def append(self, frame: Frame, limit_bytes: int | None = None) -> bool:
        """Queue a frame; False, and nothing queued, when it does not fit under the limit (the queue's where None).

        A frame larger than the whole limit fits where nothing else waits. Under the queue's own limit, a frame that
        may be dropped makes room for itself by dropping older ones of its kind.
        """
        if frame.key is not None:
            self._replace(frame.key)
        excess = self.size + frame.size - (limit_bytes or self.limit_bytes)
        if excess > 0 and self._frames and not (frame.drop_oldest and limit_bytes is None and self._evict(excess)):
            return False
        if frame.key is not None:
            self._latest = self._latest or {}
            self._latest[frame.key] = frame
        if self._frames is None:
            self._frames = deque()
        self._frames.append(frame)
        self.size += frame.size
        return True

    def _replace(self, key: str) -> None:
        older = self._latest.pop(key, None) if self._latest else None
        if older is None or self._frames is None:
            return
        self.size -= older.size
        self.conflated += 1
        self._stale = self._stale or set()
        self._stale.add(id(older))
        if len(self._stale) > 16 and len(self._stale) * 2 > len(self._frames):
            self._frames = deque(frame for frame in self._frames if id(frame) not in self._stale)
            self._stale.clear()

    def _evict(self, excess: int) -> bool:
        """Drop the oldest frames that may be dropped until ``excess`` bytes are free; False when there are too few."""
        frames = self._frames or deque()
        kept: list[Frame] = []
        while excess > 0 and frames:
            frame = frames.popleft()
            if not frame.drop_oldest or (self._stale and id(frame) in self._stale):
                kept.append(frame)
            elif not self._is_stale(frame):
                excess -= frame.size
                self.evicted += 1
        frames.extendleft(reversed(kept))
        return excess <= 0

    def _is_stale(self, frame: Frame) -> bool:
        """Whether a frame that has left the deque was replaced by a newer one. Asked once for each."""
        if self._stale and id(frame) in self._stale:
            self._stale.discard(id(frame))
            return True
        if frame.key is not None and self._latest:
            self._latest.pop(frame.key, None)
        self.size -= frame.size
        return False

    def take(self, max_bytes: int) -> list[Frame]:
        """Take frames from the front: at least one where there is one, and no more once ``max_bytes`` are reached."""
        if self._frames is None:
            return []
        if self.size <= max_bytes and not self._stale:
            batch = list(self._frames)
            self.clear()
            return batch
        batch = []
        taken = 0
        while self._frames and taken < max_bytes:
            frame = self._frames.popleft()
            if not self._is_stale(frame):
                taken += frame.size
                batch.append(frame)
        if self._frames:
            self.wake()
        else:
            self.clear()
        return batch

    def pop(self) -> Frame | None:
        """Take the first frame; None where there is none."""
        while self._frames:
            frame = self._frames.popleft()
            if not self._is_stale(frame):
                if self._frames:
                    self.wake()
                else:
                    self.clear()
                return frame
        return None

    def discard(self, is_unwanted: Callable[[Frame], bool]) -> None:
        """Drop those frames, which have no key, from anywhere in the queue."""
        unwanted = [frame for frame in self._frames or () if is_unwanted(frame)]
        self.size -= sum(frame.size for frame in unwanted)
        self._frames = deque(frame for frame in self._frames or () if not is_unwanted(frame)) or None

    def clear(self) -> None:
        self._frames = self._latest = self._stale = None
        self.size = 0
        self.wake()

    def __len__(self) -> int:
        return len(self._frames or ()) - len(self._stale or ())

    def wake(self) -> None:
        """Let those who wait for space look again: something has left, or the connection is closing."""
        self._space.wake()

    async def wait_for_space(self) -> None:
        """Wait until something has left the queue, or `wake` was called."""
        await self._space.wait()


class InboundQueue:
    """ASGI messages that the pump has read and the handler has not, bounded in number and bytes.

    A handler that reads slowly makes the pump wait, and so the client (TCP does the rest): nothing is lost. A handler
    that never reads must not: pongs and the close would stay unread, and the server would take a healthy client for
    dead. So where nobody has read since the beginning, and nobody begins to within the patience, the oldest messages
    are discarded, and counted.
    """

    __slots__ = (
        "_arrived",
        "_gave_up",
        "_last",
        "_messages",
        "_patience_s",
        "_space",
        "discarded",
        "is_read",
        "limit_bytes",
        "limit_messages",
        "size",
    )

    def __init__(self, limit_messages: int, limit_bytes: int, patience_s: float) -> None:
        self.limit_messages = limit_messages
        self.limit_bytes = limit_bytes
        self.size = 0
        self.discarded = 0
        # Whether anybody has ever read.
        self.is_read = False
        # Whether the patience with somebody who has not is over.
        self._gave_up = False
        self._patience_s = patience_s
        # None while it is empty.
        self._messages: deque[MutableMapping[str, Any]] | None = None
        # The disconnect message, once it is known that nothing follows the messages in the queue.
        self._last: MutableMapping[str, Any] | None = None
        self._arrived = Waiters()
        self._space = Waiters()

    def offer(self, message: MutableMapping[str, Any]) -> bool:
        """Queue a message; False, and nothing queued, when there is no space."""
        size = _size(message)
        messages = self._messages
        if messages is None:
            self._messages = deque((message,))
        elif self._is_full(size):
            return False
        else:
            messages.append(message)
        self.size += size
        self._arrived.wake()
        return True

    async def put(self, message: MutableMapping[str, Any]) -> None:
        """Queue a message; waits for space where somebody reads."""
        size = _size(message)
        while not self.offer(message):
            if not self._gave_up and not self.is_read:
                self._gave_up = not await self._space_came(self._patience_s)
            elif self.is_read:
                await self._space_came(None)
            if self._gave_up and not self.is_read and self._is_full(size):
                self._take()
                self.discarded += 1

    def _take(self) -> MutableMapping[str, Any]:
        assert self._messages is not None
        message = self._messages.popleft()
        self.size -= _size(message)
        if not self._messages:
            self._messages = None
        return message

    async def _space_came(self, timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._space.wait()
        except TimeoutError:
            return False
        return True

    def finish(self, disconnect: MutableMapping[str, Any]) -> None:
        """Nothing more will come; readers get ``disconnect`` after what is queued, again and again."""
        if self._last is None:
            self._last = disconnect
        self._arrived.wake()

    async def get(self) -> MutableMapping[str, Any]:
        """The next message. Cancellation loses nothing."""
        self.is_read = True
        while self._messages is None:
            if self._last is not None:
                return self._last
            await self._arrived.wait()
        message = self._take()
        self._space.wake()
        return message

    def _is_full(self, size: int) -> bool:
        messages = self._messages
        return messages is not None and (len(messages) >= self.limit_messages or self.size + size > self.limit_bytes)


def _size(message: MutableMapping[str, Any]) -> int:
    return len(message.get("text") or message.get("bytes") or b"")
