"""Frames: the encoded bytes of one envelope, and what RFC 6455 and RFC 7692 put around them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from jararaca_ws.delivery import header_of, split
from jararaca_ws.wire.packing import pack

__all__ = ["PLAIN", "Frame", "WireForm", "wire_form"]

_MIN_DEFLATE_BYTES = 256


@dataclass(frozen=True, slots=True, eq=False)
class WireForm:
    """In what form a connection gets its frames. Made by `wire_form` only, so that the same form is the same object.

    Attributes:
        window_bits: of permessage-deflate without context takeover (RFC 7692), or None for no compression. A frame so
            small that it would hardly shrink is not compressed.
        is_packed: whether JSON goes as msgpack.
    """

    window_bits: int | None
    is_packed: bool


@cache  # there are seven windows
def wire_form(window_bits: int | None, is_packed: bool, /) -> WireForm:
    """The form of this window, as msgpack or as JSON."""
    return WireForm(window_bits, is_packed)


PLAIN = wire_form(None, False)
"""JSON, not compressed."""


class Frame:
    """The encoded bytes of one envelope: made once for each message, shared by all connections that get it.

    Attributes:
        data: UTF-8 text, or any bytes where ``binary``.
        drop_oldest: whether it may be dropped for a newer frame when an outbound queue is full.
        key: None, or what a newer frame with the same key replaces it by in an outbound queue.
        size: bytes that the frame takes in an outbound queue.
    """

    __slots__ = ("_packed", "_text", "_wires", "binary", "data", "drop_oldest", "key", "size")

    #: What a queued frame costs beside its bytes; counted, so that empty frames are bounded too.
    OVERHEAD: ClassVar[int] = 64

    def __init__(self, data: bytes, *, binary: bool = False, drop_oldest: bool = False, key: str | None = None) -> None:
        self.data = data
        self.binary = binary
        self.drop_oldest = drop_oldest
        self.key = key
        self.size = len(data) + self.OVERHEAD
        # None until a server that wants text asks for it.
        self._text: str | None = None
        # None until a connection that speaks msgpack gets it.
        self._packed: Frame | None = None
        # The frame as RFC 6455 has it, by deflate window (None: not compressed); None until a server asks for it.
        self._wires: dict[int | None, bytes] | None = None

    @classmethod
    def of_payload(cls, payload: bytes) -> Frame:
        """The text frame that came through a backend, with its delivery policy.

        Raises:
            ValueError: its header is none, or its bytes are not UTF-8.
        """
        drop_oldest, key, data = split(payload)
        frame = cls(data, drop_oldest=drop_oldest, key=key)
        frame._text = data.decode()
        return frame

    @property
    def payload(self) -> bytes:
        """The bytes that a backend carries: the frame's, after its delivery policy where that is not the usual one."""
        return header_of(self.drop_oldest, self.key, self.data) + self.data

    @property
    def text(self) -> str:
        """The text, decoded at most once for all connections."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text

    @property
    def packed(self) -> Frame:
        """The same as msgpack, in a binary frame, made at most once for all connections.

        As it is, where it is binary already, or msgpack has no form for it: it is no JSON, say.
        """
        if self._packed is None:
            data = None if self.binary else pack(self.data)
            self._packed = Frame(self.data, binary=self.binary) if data is None else Frame(data, binary=True)
        return self._packed

    def wire(self, form: WireForm = PLAIN) -> bytes:
        """The frame as RFC 6455 has it, unmasked; made, and deflated, once for each form."""
        if form.is_packed:
            return self.packed.wire(wire_form(form.window_bits, False))
        window_bits = None if len(self.data) < _MIN_DEFLATE_BYTES else form.window_bits
        wires = self._wires
        if wires is None:
            wires = self._wires = {}
        wire = wires.get(window_bits)
        if wire is None:
            wire = wires[window_bits] = _wire(self.data, self.binary, window_bits)
        return wire


def _wire(data: bytes, binary: bool, window_bits: int | None) -> bytes:
    first = 0x82 if binary else 0x81
    if window_bits is not None:
        deflate = zlib.compressobj(wbits=-window_bits, memLevel=5)
        # RFC 7692, 7.2.1: without the empty block that the flush ends with.
        data = (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first |= 0x40
    length = len(data)
    if length < 126:
        return bytes((first, length)) + data
    if length < 0x10000:
        return bytes((first, 126)) + length.to_bytes(2) + data
    return bytes((first, 127)) + length.to_bytes(8) + data
