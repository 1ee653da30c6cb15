"""The wire, pinned by the vectors that clients in other languages read too.

``tests/vectors/envelopes.json``: ``messages`` are the classes and their fields; ``encode``: a message and its frame, to
the byte (UTF-8 of the string); ``decode``: what a client may send, and the message or the error code that it makes;
``publication``: what instances say to each other, bytes in base64 (an id of null: it has none).
"""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from jararaca_ws.backends.base import StreamPosition
from jararaca_ws.errors import InvalidMessage
from jararaca_ws.messages import WebSocketMessage, WebSocketMessageBase
from jararaca_ws.wire.protocol import (
    ErrorMessage,
    Gap,
    PresenceUpdate,
    decode,
    encode,
)
from jararaca_ws.wire.publications import decode_publication, encode_publication, kept_header

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelopes.json").read_text(encoding="ascii"))
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "string or null": str | None,
    "list of any": list[Any],
    "any": Any,
}


def _class(message_id: str, fields: dict[str, str]) -> type[WebSocketMessageBase]:
    control = {control.MESSAGE_ID: control for control in (Gap, ErrorMessage, PresenceUpdate)}
    if message_id in control:
        assert list(control[message_id].model_fields) == list(fields)
        return control[message_id]
    types: dict[str, Any] = {name: (TYPES[kind], ...) for name, kind in fields.items()}
    bare = create_model("Bare", __base__=WebSocketMessage, __module__=__name__, **types)
    return type(f"Vector {message_id}", (bare,), {"MESSAGE_ID": message_id, "__module__": __name__})


# Kept for the life of the module: the registry holds classes weakly.
CLASSES = {message_id: _class(message_id, fields) for message_id, fields in VECTORS["messages"].items()}


def _ids(vector: dict[str, Any]) -> str:
    return str(vector.get("why", vector.get("message_id")))


@pytest.mark.parametrize("vector", VECTORS["encode"], ids=_ids)
def test_encode(vector: dict[str, Any]):
    frame = encode(CLASSES[vector["message_id"]](**vector["fields"]))
    assert frame.data == vector["frame"].encode()
    assert json.loads(frame.text) == {"MESSAGE_ID": vector["message_id"], "message": vector["fields"]}


@pytest.mark.parametrize("vector", VECTORS["decode"], ids=_ids)
def test_decode(vector: dict[str, Any]):
    for raw in (vector["frame"], vector["frame"].encode()):
        if "error" in vector:
            with pytest.raises(InvalidMessage) as caught:
                decode(raw)
            assert caught.value.code == vector["error"]
        else:
            message = decode(raw)
            assert type(message) is CLASSES[vector["result"]["message_id"]]
            assert message.model_dump() == vector["result"]["fields"]


@pytest.mark.parametrize("vector", VECTORS["publication"], ids=_ids)
def test_publication(vector: dict[str, Any]):
    payload = b64decode(vector["payload"], validate=True)
    if "error" in vector:
        with pytest.raises(ValueError):  # noqa: PT011 - every ValueError, that is the contract with the backend
            decode_publication(vector["through"], payload)
        return
    frame = b64decode(vector["frame"], validate=True)
    position = vector["position"] and StreamPosition(*vector["position"])
    assert decode_publication(vector["through"], payload) == (vector["id"], vector["rooms"], position, frame)
    if position is not None:
        place = f',"{position.epoch}",{position.offset}]\n'.encode()
        assert kept_header(vector["id"], vector["rooms"]) + place + frame == payload
    elif vector["id"] is not None:
        assert encode_publication(vector["id"], vector["rooms"], frame) == payload
