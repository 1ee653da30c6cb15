"""From Redis channels to the manager: what arrives is decoded, and handed over once."""

from __future__ import annotations

import logging

from jararaca_ws.backends.base import BroadcastFunc, Entry, EntryFunc, SendFunc
from jararaca_ws.backends.redis_keys import Channels
from jararaca_ws.wire.publications import decode_publication

__all__ = ["Receiver"]

_log = logging.getLogger("jararaca_ws")

_REMEMBERED = 20_000
"""How many publications an instance remembers at least, to hand over each once. Copies arrive side by side; second
tries, within the publish timeout."""


class Receiver:
    """Hands over what arrives on our Redis channels.

    Attributes:
        broadcast, send, entry: the manager's; None before configure and after shutdown. Without ``entry``, what rooms
            keep goes to ``send``.
        dropped: payloads that were not ours, or of another version.
    """

    def __init__(self, channels: Channels) -> None:
        self.broadcast: BroadcastFunc | None = None
        self.send: SendFunc | None = None
        self.entry: EntryFunc | None = None
        self.dropped = 0
        self._channels = channels
        self._handed_over = _Remembered(_REMEMBERED)

    def forget(self) -> None:
        """Nothing will be handed over any more."""
        self.broadcast = self.send = self.entry = None
        self._handed_over = _Remembered(_REMEMBERED)

    async def deliver(self, channel: bytes, payload: bytes) -> None:
        """One payload to the manager. Garbage concerns nobody else: the reader goes on."""
        is_broadcast = channel == self._channels.broadcast
        room = "" if is_broadcast else self._channels.room(channel)
        try:
            publication_id, rooms, position, data = decode_publication(room, payload)
        except ValueError as error:
            self._drop(error)
            return
        if position is not None and publication_id is not None and self.entry is not None:
            await self.entry(room, Entry(position, publication_id, data), rooms)
        elif publication_id is None or self._handed_over.add(publication_id):
            if not is_broadcast and self.send is not None:
                await self.send(rooms, data)
            elif is_broadcast and self.broadcast is not None:
                await self.broadcast(data)

    def _drop(self, error: ValueError) -> None:
        self.dropped += 1
        if self.dropped == 1 or self.dropped % 1000 == 0:
            _log.warning(
                "dropped a payload on a Redis channel of ours, %d so far: %s", self.dropped, type(error).__name__
            )


class _Remembered:
    """The last publications that were handed over: at least so many, at most twice as many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, publication_id: str) -> bool:
        """Remember one; False where it is remembered already."""
        if publication_id in self._newer or publication_id in self._older:
            return False
        if len(self._newer) >= self._size:
            self._newer, self._older = set(), self._newer
        self._newer.add(publication_id)
        return True
