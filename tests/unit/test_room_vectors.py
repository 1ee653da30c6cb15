"""The wire of requests for rooms, pinned by the vectors that clients in other languages read too.

``tests/vectors/rooms.json``: ``request``: what a client asks; ``malformed``: what is refused as such, and the ``ref``
of the answer; ``other``: what is no request; ``answer``: an answer and its frame, to the byte; ``name``: how values are
written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jararaca_ws import Room
from jararaca_ws.typed_rooms import room_named
from jararaca_ws.wire.protocol import ErrorMessage
from jararaca_ws.wire.room_requests import Joined, Left, MalformedRequest, Sent, answer_frame, decode_request

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rooms.json").read_text(encoding="ascii"))
ANSWERS = {answer.MESSAGE_ID: answer for answer in (Joined, Left, Sent, ErrorMessage)}


def each(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: str(vector.get("why", "")))


@each("request")
def test_a_request(vector: dict[str, Any]):
    request = decode_request(vector["frame"])
    assert request is not None
    assert not isinstance(request, MalformedRequest)
    assert (request.MESSAGE_ID, request.ref) == (f"jararaca.{vector['kind']}", vector["ref"])
    assert request.message.model_dump() == vector["message"]


@each("malformed")
def test_what_is_malformed(vector: dict[str, Any]):
    request = decode_request(vector["frame"])
    assert isinstance(request, MalformedRequest)
    assert request.ref == vector["ref"]


@each("other")
def test_what_is_no_request(vector: dict[str, Any]):
    assert decode_request(vector["frame"]) is None


@each("answer")
def test_an_answer(vector: dict[str, Any]):
    frame = answer_frame(ANSWERS[vector["message_id"]](**vector["fields"]), vector["ref"])
    assert frame.data.decode() == vector["frame"]


@each("name")
def test_a_name(vector: dict[str, Any]):
    fields = dict.fromkeys(vector["values"], str)
    cls = type("Vector", (Room,), {"__annotations__": fields, "__module__": __name__}, pattern=vector["pattern"])
    room = cls(**vector["values"])
    assert str(room) == vector["name"]
    assert room_named(vector["name"], [cls]) == room
