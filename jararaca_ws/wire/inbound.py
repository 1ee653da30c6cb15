"""What clients send to typed handlers, and what goes back: the wire's inbound half, beside `protocol`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticSerializationError, from_json, to_json

from jararaca_ws.errors import InvalidMessage, MessageNotEncodable, UnknownMessage, quoted
from jararaca_ws.messages import WebSocketMessageBase
from jararaca_ws.wire.frames import Frame
from jararaca_ws.wire.protocol import encode, encode_fields, problem_of, refuse_words

__all__ = ["Codec", "Envelopes", "FlatPayloads", "Inbound", "NoMessages", "flat_reply"]


class Inbound(NamedTuple):
    """A message as it came.

    Attributes:
        ref: the client wants a reply that names this; None where it asked for none.
    """

    message: BaseModel
    ref: str | None


class Codec(Protocol):
    """How messages look."""

    def decode(self, raw: str | bytes) -> Inbound:
        """Validate, in one pass.

        Raises:
            InvalidMessage: ``bad_request`` or ``unknown_type``; its cause is pydantic's error.
        """
        ...

    def ref_of(self, raw: str | bytes) -> str | None:
        """The ref of a message that could not be decoded, where it has one."""
        ...

    def reply(self, value: Any, ref: str | None) -> Frame | None:
        """What a handler has returned, for the client; None where nothing goes back.

        Raises:
            MessageIdUnset, MessageNotEncodable: as `protocol.encode`.
        """
        ...


_Ref = Annotated[str, Field(min_length=1, max_length=255)]


class _Asks(BaseModel):
    ref: _Ref


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore")

    ref: _Ref | None = None


_asks = TypeAdapter(_Asks)


class Envelopes:
    """Envelopes: ``MESSAGE_ID`` says the class, ``ref`` asks for a reply."""

    def __init__(self, classes: Sequence[type[WebSocketMessageBase]]) -> None:
        self._adapter = _union([_envelope(cls) for cls in classes], "MESSAGE_ID")

    def decode(self, raw: str | bytes) -> Inbound:
        envelope = _validated(self._adapter, raw, "MESSAGE_ID")
        return Inbound(envelope.message, envelope.ref)

    def ref_of(self, raw: str | bytes) -> str | None:
        try:
            return _asks.validate_json(raw).ref
        except ValidationError:
            return None

    def reply(self, value: Any, ref: str | None) -> Frame | None:
        if ref is not None:
            return Frame(b'{"MESSAGE_ID":"jararaca.reply","ref":%b,"message":%b}' % (to_json(ref), _json(value)))
        return encode(value) if isinstance(value, WebSocketMessageBase) else None


class NoMessages:
    """Where nothing is handled."""

    def decode(self, raw: str | bytes) -> Inbound:
        raise UnknownMessage("nothing is handled here")

    def ref_of(self, raw: str | bytes) -> str | None:
        return None

    def reply(self, value: Any, ref: str | None) -> Frame | None:
        return flat_reply(value, ref)


class FlatPayloads:
    """The fields themselves, without an envelope: a field says the class, or the first that fits is it."""

    def __init__(self, classes: Sequence[type[BaseModel]], discriminator: str | None) -> None:
        self._discriminator = discriminator
        self._adapter = _union(classes, discriminator)

    def decode(self, raw: str | bytes) -> Inbound:
        return Inbound(_validated(self._adapter, raw, self._discriminator), None)

    def ref_of(self, raw: str | bytes) -> str | None:
        return None

    def reply(self, value: Any, ref: str | None) -> Frame | None:
        return flat_reply(value, ref)


def flat_reply(value: Any, ref: str | None) -> Frame | None:
    """What goes back without a ref: a message as `protocol.encode` has it, all else as JSON."""
    if isinstance(value, WebSocketMessageBase):
        return encode(value)
    return None if value is None else Frame(_json(value))


def _envelope(cls: type[WebSocketMessageBase]) -> type[BaseModel]:
    fields: dict[str, Any] = {"MESSAGE_ID": (Literal[cls.MESSAGE_ID], ...), "message": (cls, ...)}
    return create_model("Envelope", __base__=_Envelope, **fields)


def _union(classes: Sequence[type[BaseModel]], discriminator: str | None) -> TypeAdapter[Any]:
    if len(classes) == 1:
        return TypeAdapter(classes[0])
    union: Any = Union[tuple(classes)]  # noqa: UP007  # made at run time
    if discriminator is not None:
        union = Annotated.__class_getitem__((union, Field(discriminator=discriminator)))  # type: ignore[attr-defined]
    return TypeAdapter(union)


def _validated(adapter: TypeAdapter[Any], raw: str | bytes, discriminator: str | None) -> Any:
    try:
        refuse_words(raw)
        return adapter.validate_json(raw)
    except ValidationError as error:
        raise _refusal(error, discriminator) from error
    except ValueError as error:
        raise InvalidMessage("not JSON: NaN or infinity") from error


def _refusal(error: ValidationError, discriminator: str | None) -> InvalidMessage:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # The second where there is one class, and so no union.
    is_unknown = first["type"] == "union_tag_invalid" and not first["loc"]
    is_unknown = is_unknown or (first["type"] == "literal_error" and first["loc"] == (discriminator,))
    return (UnknownMessage if is_unknown else InvalidMessage)(problem_of(error))


def _json(value: Any) -> bytes:
    if isinstance(value, WebSocketMessageBase):
        return encode_fields(value)
    try:
        data = to_json(value, by_alias=True, inf_nan_mode="constants")
        if b"NaN" in data or b"Infinity" in data:
            from_json(data, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise MessageNotEncodable(type(value), quoted(str(error))) from error
    return data
