"""Counting the WebSocket frames in a stream of bytes by their headers, at a fraction of a microsecond each."""

from __future__ import annotations

__all__ = ["CLOSE", "PING", "FrameCounter", "masked"]

CLOSE, PING = 0x8, 0x9


class FrameCounter:
    """The frames of one connection, server to client.

    Attributes:
        between_frames: whether the last chunk ended where a frame did.
        control: (opcode, payload) of the control frames since the caller last took them.
    """

    __slots__ = ("_payload_left", "_start", "between_frames", "control")

    def __init__(self) -> None:
        self.between_frames = True
        self.control: list[tuple[int, bytes]] = []
        # The beginning of a frame whose header, or whose control payload, is not complete.
        self._start = b""
        self._payload_left = 0

    def feed(self, chunk: bytes) -> int:
        """How many data frames end in ``chunk``."""
        frames = self._feed(chunk)
        self.between_frames = not self._start and not self._payload_left
        return frames

    def _feed(self, chunk: bytes) -> int:
        if self._start:
            chunk, self._start = self._start + chunk, b""
        position, end, frames = 0, len(chunk), 0
        if self._payload_left:
            if self._payload_left > end:
                self._payload_left -= end
                return 0
            position, self._payload_left, frames = self._payload_left, 0, 1
        while position < end:
            header = _header(chunk, position, end)
            if header is None:
                self._start = chunk[position:]
                break
            opcode, header_size, size = header
            if opcode >= CLOSE:
                if position + size > end:
                    self._start = chunk[position:]
                    break
                self.control.append((opcode, chunk[position + header_size : position + size]))
                position += size
            elif position + size > end:
                self._payload_left = position + size - end
                break
            else:
                alike = _alike(chunk, position, end, header_size, size)
                frames += alike
                position += alike * size
        return frames


def _header(chunk: bytes, position: int, end: int) -> tuple[int, int, int] | None:
    """(opcode, size of the header, size of the frame), or None while the header is not complete."""
    if position + 2 > end:
        return None
    length = chunk[position + 1]
    if length < 126:
        return chunk[position] & 0x0F, 2, 2 + length
    extended = 2 if length == 126 else 8
    if position + 2 + extended > end:
        return None
    length = int.from_bytes(chunk[position + 2 : position + 2 + extended])
    return chunk[position] & 0x0F, 2 + extended, 2 + extended + length


def _alike(chunk: bytes, position: int, end: int, header_size: int, size: int) -> int:
    """How many frames with the header of the first one follow each other: a burst, counted in one go."""
    count = (end - position) // size
    if count == 1:
        return 1
    last = position + count * size
    for offset in range(position, position + header_size):
        # The same byte at the same place of every frame, or they are not alike.
        if chunk[offset:last:size] != chunk[offset : offset + 1] * count:
            return 1
    return count


def masked(opcode: int, payload: bytes) -> bytes:
    """A client frame of up to 65,535 bytes; its mask is zero, which leaves the payload as it is."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload
