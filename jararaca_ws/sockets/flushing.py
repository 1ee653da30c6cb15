"""What is delivered while the event loop turns once, written at the end of that turn: one write for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from jararaca_ws.wire.frames import Frame, WireForm

__all__ = ["TURN_BYTES", "Flushable", "Receiver", "TickFlusher"]

TURN_BYTES = 128 * 1024
"""What one connection may write in one go: a connection with a long queue does not hold up the others."""


class Receiver(Protocol):
    """A connection, as the flusher sees it."""

    @property
    def direct(self) -> Callable[[bytes], None] | None:
        """Writes complete frames to the transport; None unless it takes them at once and nothing waits before them."""
        ...

    @property
    def form(self) -> WireForm: ...

    def queue(self, frame: Frame) -> bool:
        """Put a frame into the outbound queue; False when it is closing, or closed for being too slow."""
        ...

    def failed(self, error: Exception) -> None:
        """Writing has raised."""
        ...


class Flushable(Protocol):
    """The writer of a connection, as the flusher sees it."""

    def flush(self) -> None:
        """Write what is queued."""
        ...

    def failed(self, error: Exception) -> None: ...


class TickFlusher:
    """Collects what is delivered in this turn of the event loop, and writes it at its end. One for each manager.

    Most connections have taken all that they were given before, and most turns deliver to one room: then delivery is
    one loop over the room with one write for each connection, and no queue is touched. Whoever cannot take frames at
    once gets them into its outbound queue, in the same order.

    Attributes:
        ticks: how many turns had something to write.
        writes: how many writes to transports there were.
        delivered: how many frames were written or queued.
        bytes_out: how many bytes they had; the queued ones without the heads of frames.
        conflated: how many were not, because a newer one with the same key came in the same turn.
    """

    def __init__(self) -> None:
        self.ticks = 0
        self.writes = 0
        self.delivered = 0
        self.bytes_out = 0
        self.conflated = 0
        self._woken: list[Flushable] = []
        # Delivered in this turn, in order, and neither written nor queued yet.
        self._delivered: list[tuple[Frame, Sequence[Receiver]]] = []
        self._delivered_bytes = 0
        # Whether one of these frames may replace another one.
        self._keyed = False
        self._scheduled = False
        # The last batch that was joined, in each form: in a room, most connections have the same frames to write.
        self._batch: list[Frame] = []
        self._joined: dict[WireForm, bytes] = {}

    def add(self, writer: Flushable) -> None:
        """Have a writer flushed at the end of this turn."""
        self._schedule()
        self._woken.append(writer)

    def deliver(self, frame: Frame, receivers: Sequence[Receiver]) -> None:
        """Have a frame written at the end of this turn to each of the receivers. They must not change any more."""
        self._schedule()
        self._delivered.append((frame, receivers))
        self._keyed = self._keyed or frame.key is not None
        self._delivered_bytes += frame.size
        if self._delivered_bytes > TURN_BYTES:
            self._write_delivered()

    def settle(self) -> None:
        """Put what was delivered into the queues now: a connection is about to queue, or to close, behind it."""
        delivered = self._take()
        for frame, receivers in delivered:
            for receiver in receivers:
                self._queue(frame, receiver)

    def _queue(self, frame: Frame, receiver: Receiver) -> None:
        if receiver.queue(frame):
            self.count_queued(frame)

    def count_queued(self, frame: Frame) -> None:
        """A frame was put into an outbound queue."""
        self.delivered += 1
        self.bytes_out += len(frame.data)

    def join(self, batch: list[Frame], form: WireForm) -> bytes:
        """The bytes of the frames, made once for neighbours that write the same."""
        if batch is not self._batch and batch != self._batch:
            self._batch, self._joined = batch, {}
        joined = self._joined.get(form)
        if joined is None:
            wires = [frame.wire(form) for frame in batch]
            joined = self._joined[form] = wires[0] if len(wires) == 1 else b"".join(wires)
        return joined

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self.ticks += 1
        self._write_delivered()
        woken, self._woken = self._woken, []
        for writer in woken:
            try:
                writer.flush()
            except Exception as error:
                # One socket's trouble is not the others': they have been woken, and nobody would wake them again.
                writer.failed(error)
        # Not kept: it may hold on to large frames.
        self._batch, self._joined = [], {}

    def _take(self) -> list[tuple[Frame, Sequence[Receiver]]]:
        delivered, self._delivered = self._delivered, []
        self._delivered_bytes = 0
        self._keyed = False
        return delivered

    def _write_delivered(self) -> None:
        keyed = self._keyed
        delivered = self._take()
        if not delivered:
            return
        first = delivered[0][1]
        if len(delivered) == 1:
            self._write([delivered[0][0]], first)
            return
        if all(receivers is first or receivers == first for _, receivers in delivered):
            batch = [frame for frame, _ in delivered]
            self._write(self._newest(batch, len(first)) if keyed else batch, first)
            return
        batches: dict[Receiver, list[Frame]] = {}
        for frame, receivers in delivered:
            for receiver in receivers:
                frames = batches.get(receiver)
                if frames is None:
                    batches[receiver] = [frame]
                else:
                    frames.append(frame)
        for receiver, frames in batches.items():
            self._write(self._newest(frames, 1) if keyed else frames, (receiver,))

    def _newest(self, batch: list[Frame], receivers: int) -> list[Frame]:
        """The batch, with only the last of the frames that have one key."""
        last = {frame.key: frame for frame in batch}
        newest = [frame for frame in batch if frame.key is None or last[frame.key] is frame]
        self.conflated += (len(batch) - len(newest)) * receivers
        return newest

    def _write(self, batch: list[Frame], receivers: Sequence[Receiver]) -> None:
        """Write the same frames to each receiver: the loop that the speed of the whole library is made of."""
        form: WireForm | None = None
        joined = b""
        # All writes, and those of them that are counted in bytes: once for each form, not for each receiver.
        writes = counted = 0
        for receiver in receivers:
            write = receiver.direct
            if write is None:
                for frame in batch:
                    self._queue(frame, receiver)
                continue
            if receiver.form is not form:
                self.bytes_out += (writes - counted) * len(joined)
                counted = writes
                form = receiver.form
                joined = self.join(batch, form)
            writes += 1
            try:
                write(joined)
            except Exception as error:
                receiver.failed(error)
        self.bytes_out += (writes - counted) * len(joined)
        self.writes += writes
        self.delivered += writes * len(batch)
