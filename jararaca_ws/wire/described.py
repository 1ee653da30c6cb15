"""The wire as JSON Schema, for documents that describe what an endpoint takes and sends. Nothing is checked with it.

With `protocol` and `retained` the only module that knows wire keys. ``docs/protocol.md`` is its prose.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.wire.protocol import ErrorMessage

__all__ = ["Schema", "asked", "error", "received", "replied", "returned", "sent", "to_room"]

Schema: TypeAlias = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_REF: Schema = {**_TEXT, "minLength": 1, "maxLength": 255}
_PLACE: dict[str, Schema] = {"id": _TEXT, "room": _TEXT, "epoch": _TEXT, "offset": {"type": "integer"}}


def received(message_id: str, message: Schema, *, max_ref: int = 255) -> Schema:
    """What a client sends; a ``ref`` asks for a reply."""
    ref = {**_REF, "maxLength": max_ref, "description": "Asks for a reply, which names it."}
    return _envelope(message_id, message, ref=ref)


def returned(cls: type[WebSocketMessageBase], message: Schema) -> Schema:
    """What a handler has returned, to a client that has given no ``ref``."""
    return _envelope(cls.MESSAGE_ID, message)


def sent(cls: type[WebSocketMessageBase], message: Schema) -> Schema:
    """What the server sends: where rooms keep it, with its place in the history."""
    place = {} if cls.DELIVERY.retention is None else _PLACE
    return _envelope(cls.MESSAGE_ID, message, **place)


def asked(cls: type[WebSocketMessageBase], message: Schema) -> Schema:
    """What the server asks a client; the answer names the ``ref``."""
    return _envelope(cls.MESSAGE_ID, message, ("ref",), ref=_REF)


def replied(message: Schema, message_id: str = "jararaca.reply") -> Schema:
    """The answer to what had a ``ref``, whichever side has asked."""
    return _envelope(message_id, message, ("ref",), ref=_REF)


def error() -> Schema:
    """What a client is told whose message was not handled."""
    return _envelope(ErrorMessage.MESSAGE_ID, ErrorMessage.model_json_schema(), ref=_REF)


def to_room(message_id: str, message: Schema) -> Schema:
    """What a client wants to have sent to a room: the message of ``jararaca.send``."""
    return _envelope(message_id, message, ("room",), room=_TEXT)


def _envelope(message_id: str, message: Schema, required: tuple[str, ...] = (), /, **others: Schema) -> Schema:
    return {
        "title": message_id,
        "type": "object",
        "properties": {"MESSAGE_ID": {"type": "string", "const": message_id}, "message": message, **others},
        "required": ["MESSAGE_ID", "message", *required],
    }
