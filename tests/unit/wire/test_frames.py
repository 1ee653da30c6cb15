from __future__ import annotations

import pytest

from jararaca_ws.wire.frames import Frame


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
