from __future__ import annotations

import zlib

import pytest

from jararaca_ws.wire import frames
from jararaca_ws.wire.frames import PLAIN, Frame, wire_form


class TestFrame:
    def test_its_size_counts_bytes_and_overhead(self):
        assert Frame("é".encode()).size == 2 + Frame.OVERHEAD
        assert Frame(b"").size > 0, "empty frames are bounded too"

    def test_text_is_decoded_once(self):
        frame = Frame("größe".encode())
        assert frame.text == "größe"
        assert frame.text is frame.text

    def test_of_payload_refuses_what_is_not_utf_8(self):
        with pytest.raises(UnicodeDecodeError):
            Frame.of_payload(b"\xff")
        assert Frame.of_payload(b"x").text == "x"


class TestPacked:
    def test_it_is_packed_once_for_all_and_for_every_window(self, monkeypatch: pytest.MonkeyPatch):
        packed: list[bytes] = []
        monkeypatch.setattr(frames, "pack", lambda data: packed.append(data) or b"\x81\xa1a\x01")
        frame = Frame(b'{"a":1}')
        assert frame.wire() == b"\x81\x07" + frame.data
        assert packed == [], "nobody has asked for it"
        wires = {frame.wire(wire_form(window, True)) for window in (None, 12, 9)}
        assert wires == {b"\x82\x04\x81\xa1a\x01"}
        assert frame.packed is frame.packed
        assert packed == [frame.data]
        assert frame.wire() == b"\x81\x07" + frame.data

    @pytest.mark.parametrize(("data", "binary"), [(b"hello", False), (b"\xff", True), (b'{"a":1}', True)])
    def test_what_is_no_json_or_is_binary_stays_as_it_is(self, data: bytes, binary: bool):
        frame = Frame(data, binary=binary)
        assert (frame.packed.data, frame.packed.binary) == (data, binary)
        assert frame.wire(wire_form(None, True)) == frame.wire()

    def test_it_is_deflated_as_msgpack(self):
        frame = Frame(b'{"a":"%s"}' % (b"x" * 1000))
        wire = frame.wire(wire_form(12, True))
        assert wire[0] == 0x80 | 0x40 | 2
        assert zlib.decompressobj(-12).decompress(wire[2:] + b"\0\0\xff\xff") == frame.packed.data
        assert wire != frame.wire(wire_form(12, False))

    def test_a_form_is_one_object(self):
        assert wire_form(None, False) is PLAIN
        assert wire_form(12, True) is wire_form(12, True)
        assert len({wire_form(window, packed) for window in (None, 12) for packed in (False, True)}) == 4
