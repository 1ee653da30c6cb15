"""The wire of calls: envelopes with a ``ref``, which ties an answer to what it answers.

With `protocol` and `retained` the only module that knows wire keys. ``docs/protocol.md`` is its prose.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import to_json

from jararaca_ws.errors import CallFailed
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import problem_of, refuse_words

__all__ = ["answered_ref", "decode_reply", "reply_envelope", "with_ref"]


def with_ref(frame: Frame, ref: str) -> Frame:
    """A frame that asks for an answer. It is never dropped for a newer one: somebody waits."""
    return Frame(b'%b,"ref":%b}' % (frame.data[:-1], to_json(ref)))


class _Head(BaseModel):
    MESSAGE_ID: Literal["jararaca.reply", "jararaca.error"]
    ref: str


class _Refusal(BaseModel):
    code: Annotated[str, Field(max_length=64)]


class _Error(BaseModel):
    MESSAGE_ID: Literal["jararaca.error"]
    message: _Refusal


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    MESSAGE_ID: Literal["jararaca.reply"]


_head = TypeAdapter(_Head)
_error = TypeAdapter(_Error)


def answered_ref(raw: str) -> str | None:
    """What a client answers to; None where this is another message."""
    if '"jararaca.reply"' not in raw and '"jararaca.error"' not in raw:
        return None  # nearly all: they are not parsed for this
    try:
        return _head.validate_json(raw).ref
    except ValidationError:
        return None


def reply_envelope(reply_type: Any) -> TypeAdapter[Any]:
    """What checks a reply of this type."""
    return TypeAdapter(create_model("Reply", __base__=_Answer, message=(reply_type, ...)))


def decode_reply(raw: str, envelope: TypeAdapter[Any]) -> Any:
    """What a client replied.

    Raises:
        CallFailed: it answered with an error, or with something else than it was asked for.
    """
    try:
        refuse_words(raw)
        return envelope.validate_json(raw).message
    except ValidationError as error:
        problem = problem_of(error)
    except ValueError:
        problem = "not JSON: NaN or infinity"
    try:
        code = _error.validate_json(raw).message.code
    except ValidationError:
        raise CallFailed("bad_reply", problem) from None
    raise CallFailed(code, "the client answered with an error")
