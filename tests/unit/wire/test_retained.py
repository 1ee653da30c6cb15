"""The wire of histories, pinned by ``tests/vectors/histories.json``.

``control``: what the server says; ``retained``: a payload, its place, and the frame that clients get, to the byte;
``recover``: what a client that comes back sends, and its positions (null: the frame is the application's).
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jararaca_ws.backends.base import Entry, StreamPosition
from jararaca_ws.delivery import MAX_HISTORY, recoverable
from jararaca_ws.errors import ConfigurationError, InvalidMessage
from jararaca_ws.wire.protocol import encode
from jararaca_ws.wire.retained import MAX_RETAINED_OVERHEAD, Position, Recovered, decode_positions, retained_frame

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "histories.json").read_text(encoding="ascii"))
CONTROL = {"position": Position, "recovered": Recovered}


def _why(vector: dict[str, Any]) -> str:
    return str(vector.get("why", vector.get("name")))


@pytest.mark.parametrize("vector", VECTORS["control"], ids=_why)
def test_control(vector: dict[str, Any]):
    assert encode(CONTROL[vector["name"]](**vector["fields"])).text == vector["frame"]


@pytest.mark.parametrize("vector", VECTORS["retained"], ids=_why)
def test_retained(vector: dict[str, Any]):
    entry = Entry(StreamPosition(vector["epoch"], vector["offset"]), vector["id"], vector["payload"].encode())
    if "error" in vector:
        with pytest.raises(ValueError, match="envelope"):
            retained_frame(vector["room"], entry)
        return
    frame = retained_frame(vector["room"], entry)
    assert frame.text == vector["frame"]
    assert json.loads(frame.text)["room"] == vector["room"]


def test_what_is_not_utf_8_is_no_frame():
    with pytest.raises(ValueError, match="utf-8"):
        retained_frame("a", Entry(StreamPosition("e", 1), "id", b"\xff}"))


@pytest.mark.parametrize("vector", VECTORS["recover"], ids=_why)
def test_recover(vector: dict[str, Any]):
    if "error" in vector:
        with pytest.raises(InvalidMessage) as caught:
            decode_positions(vector["frame"])
        assert caught.value.code == vector["error"]
        return
    positions = decode_positions(vector["frame"])
    expected = vector["positions"]
    assert positions == ((expected and {room: StreamPosition(*place) for room, place in expected.items()}) or expected)


def test_the_longest_names_fit_into_the_overhead():
    entry = Entry(StreamPosition('"' * 64, 2**63), '"' * 255, b"{}")
    # 255 bytes of UTF-8 without control characters: a quote is the longest that one byte becomes.
    assert len(retained_frame('"' * 255, entry).data) <= MAX_RETAINED_OVERHEAD


@pytest.mark.parametrize("size", [0, -1, MAX_HISTORY + 1])
def test_a_history_has_a_size(size: int):
    with pytest.raises(ConfigurationError, match="size"):
        recoverable(size=size)


def test_a_history_has_a_time():
    for ttl in (timedelta(0), timedelta(seconds=-1), timedelta(days=31)):
        with pytest.raises(ConfigurationError, match="ttl"):
            recoverable(ttl=ttl)
    retention = recoverable(size=7, ttl=timedelta(seconds=2.5)).retention
    assert retention == (7, 2500)
