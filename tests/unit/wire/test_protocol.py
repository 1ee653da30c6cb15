from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_serializer, field_validator
from typing_extensions import TypedDict

from jararaca_ws.errors import InvalidMessage, MessageNotEncodable
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.wire.protocol import (
    CloseCode,
    ErrorMessage,
    Gap,
    decode,
    encode,
)
from jararaca_ws.wire.publications import decode_publication, encode_publication, kept_header


class Plain(BaseModel):
    """A model of the user's own: it does not inherit our refusal of NaN."""

    x: float = 0.0


class Bag(BaseModel):
    xs: deque[float]


@dataclass
class Point:
    x: float


class Typed(TypedDict):
    x: float


class Root(RootModel[float]): ...


class Holder(WebSocketMessage):
    MESSAGE_ID = "test_protocol.holder"

    x: float = 0.0
    any: Any = None
    plain: Plain | None = None
    bag: Bag | None = None
    root: Root | None = None
    point: Point | None = None
    typed: Typed | None = None
    table: dict[str, float] = Field(default_factory=dict)
    xs: list[float] = Field(default_factory=list)


class Untyped(WebSocketMessage):
    """No model in its fields, as far as anybody can see."""

    MESSAGE_ID = "test_protocol.untyped"

    any: Any = None


class Serialized(WebSocketMessage):
    MESSAGE_ID = "test_protocol.serialized"

    way: str

    @field_serializer("way")
    def _way(self, way: str) -> Any:
        return {"float": math.nan, "model": Plain(x=math.nan)}[way]


class Secretive(WebSocketMessage):
    MESSAGE_ID = "test_protocol.secretive"
    model_config = ConfigDict(extra="forbid")

    number: int = 0
    one_of: Literal["a", "b"] = "a"
    text: Annotated[str, Field(max_length=50)] = ""
    checked: str = ""
    asserted: str = ""
    union: Annotated[A | B | None, Field()] = None
    tagged: Annotated[A | B, Field(discriminator="kind")] | None = None

    @field_validator("checked")
    @classmethod
    def _check(cls, value: str) -> str:
        raise ValueError(f"{value} is taken")

    @field_validator("asserted")
    @classmethod
    def _assert(cls, value: str) -> str:
        raise AssertionError(f"{value} is taken")


class A(BaseModel):
    kind: Literal["a"]


class B(BaseModel):
    kind: Literal["b"]


Secretive.model_rebuild()


def envelope(message_id: str, message: str) -> str:
    return f'{{"MESSAGE_ID":{json.dumps(message_id)},"message":{message}}}'


NON_FINITE: dict[str, Callable[[float], WebSocketMessage]] = {
    "a field, not validated": lambda x: Holder.model_construct(x=x),
    "a dict": lambda x: Holder.model_construct(table={"a": x}),
    "a list": lambda x: Holder.model_construct(xs=[1.0, x]),
    "a plain model": lambda x: Holder(plain=Plain(x=x)),
    "a plain model, not validated": lambda x: Holder.model_construct(plain=Plain.model_construct(x=x)),
    "a root model": lambda x: Holder(root=Root(x)),
    "a deque in a plain model": lambda x: Holder(bag=Bag(xs=deque([x]))),
    "a dataclass": lambda x: Holder(point=Point(x)),
    "a typed dict, not validated": lambda x: Holder.model_construct(typed={"x": x}),
    "a value under Any": lambda x: Untyped(any=x),
    "a list under Any": lambda x: Untyped(any=[{"deep": [x]}]),
    "a dataclass under Any": lambda x: Untyped(any=Point(x)),
    "a plain model under Any": lambda x: Untyped(any=Plain(x=x)),
    "a plain model in a list under Any": lambda x: Untyped(any=[Plain(x=x)]),
    "a plain model under Any, models declared elsewhere": lambda x: Holder(any=[Plain(x=x)]),
    "a serializer's float": lambda x: Serialized(way="float"),
    "a serializer's model": lambda x: Serialized(way="model"),
}


class TestEncode:
    def test_the_envelope_is_compact_json_with_the_id_first(self):
        assert encode(Holder(x=1.5, xs=[1])).data.startswith(
            b'{"MESSAGE_ID":"test_protocol.holder","message":{"x":1.5,"any":null,'
        )

    @pytest.mark.parametrize("make", NON_FINITE.values(), ids=NON_FINITE.keys())
    @pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
    def test_nan_and_infinity_are_refused_at_every_depth(self, make: Callable[[float], WebSocketMessage], x: float):
        message = make(x)
        with pytest.raises(MessageNotEncodable, match=type(message).__qualname__):
            encode(message)

    def test_the_words_nan_and_infinity_are_ordinary_text(self):
        message = Untyped(any=["NaN", "-Infinity", None, {"Infinity": "null"}])
        assert decode(encode(message).data) == message

    def test_none_is_null(self):
        assert encode(Untyped()).data == b'{"MESSAGE_ID":"test_protocol.untyped","message":{"any":null}}'
        assert decode(encode(Holder(plain=Plain(x=1), any=[None])).data) == Holder(plain=Plain(x=1), any=[None])

    @pytest.mark.parametrize("value", [object(), b"\xff", "\ud800", lambda: None], ids=repr)
    def test_what_json_has_no_word_for_is_refused(self, value: object):
        with pytest.raises(MessageNotEncodable, match=r"test_protocol\.Untyped cannot be encoded"):
            encode(Untyped(any=value))

    def test_a_value_that_contains_itself_is_refused(self):
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(MessageNotEncodable):
            encode(Untyped(any=endless))

    def test_decimals_are_strings_and_finite(self):
        class Priced(WebSocketMessage):
            MESSAGE_ID = "test_protocol.priced"

            price: Decimal

        assert b'"price":"1.50"' in encode(Priced(price=Decimal("1.50"))).data
        with pytest.raises(ValueError, match="finite"):
            Priced(price=Decimal("NaN"))

    @given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
    def test_what_is_encoded_is_decoded_the_same(self, value: Any):
        if "\\ud" in json.dumps(value, ensure_ascii=True):  # pairs of surrogates are decoded, lone ones are refused
            return
        assert decode(encode(Untyped(any=value)).data) == Untyped(any=value)


BAD_REQUESTS = {
    "B8 empty": "",
    "B8 null": "null",
    "B8 list": "[]",
    "B8 number": "5",
    "B8 string": '"x"',
    "B8 no id": '{"message":{}}',
    "B8 id of another type": '{"MESSAGE_ID":5,"message":{}}',
    "B8 no message": '{"MESSAGE_ID":"test_protocol.untyped"}',
    "B8 null message": envelope("test_protocol.untyped", "null"),
    "B8 message is a list": envelope("test_protocol.untyped", "[]"),
    "B8 two values": envelope("test_protocol.untyped", "{}") * 2,
    "B9 deep": "[" * 100_000,
    "B9 deep inside": envelope("test_protocol.untyped", '{"any":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "B10 5000 digits": envelope("test_protocol.untyped", '{"any":' + "9" * 5000 + "}"),
    "B11 NaN": envelope("test_protocol.holder", '{"x":NaN}'),
    "B11 Infinity": envelope("test_protocol.holder", '{"x":-Infinity}'),
    "B11 too large for a float": envelope("test_protocol.holder", '{"x":1e999}'),
    "B11 NaN in a plain model": envelope("test_protocol.holder", '{"plain":{"x":NaN}}'),
    "B11 NaN under Any": envelope("test_protocol.untyped", '{"any":[NaN]}'),
    "B11 NaN beside the message": '{"MESSAGE_ID":"test_protocol.untyped","message":{},"id":NaN}',
    "B12 lone surrogate": envelope("test_protocol.untyped", '{"any":"\\ud800"}'),
    "B12 lone surrogate in the id": '{"MESSAGE_ID":"\\ud800","message":{}}',
    "B12 lone surrogate unescaped": '{"MESSAGE_ID":"\ud800","message":{}}',
    "B14 extra field": envelope("test_protocol.secretive", '{"more":1}'),
    "B14 wrong type": envelope("test_protocol.holder", '{"x":"a"}'),
}


class TestDecode:
    @pytest.mark.parametrize("raw", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
    def test_what_is_not_an_envelope_is_a_bad_request(self, raw: str):
        with pytest.raises(InvalidMessage) as caught:
            decode(raw)
        assert caught.value.code == "bad_request"
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        "message_id", ["test_protocol.nobody", "", "__UNSET__", "jararaca.gap", "jararaca.error", "x" * 100_000]
    )
    def test_b14_an_unknown_id_and_a_control_message_are_unknown(self, message_id: str):
        with pytest.raises(InvalidMessage) as caught:
            decode(envelope(message_id, '{"room":"a","code":"x","id":"y"}'))
        assert caught.value.code == "unknown_type"
        assert len(str(caught.value)) < 400

    def test_b13_the_last_of_two_keys_wins_everywhere(self):
        raw = (
            '{"MESSAGE_ID":"jararaca.gap","MESSAGE_ID":"test_protocol.untyped",'
            '"message":{"any":1},"message":{"any":2,"any":3}}'
        )
        assert decode(raw) == Untyped(any=3)

    def test_unknown_keys_of_the_envelope_are_left_for_later_versions(self):
        assert decode('{"id":"1","MESSAGE_ID":"test_protocol.untyped","ref":{},"message":{}}') == Untyped()

    def test_bytes_and_text_are_the_same(self):
        raw = envelope("test_protocol.untyped", '{"any":"größe"}')
        assert decode(raw) == decode(raw.encode()) == Untyped(any="größe")

    @pytest.mark.parametrize(
        "message",
        [
            '{"number":"hunter2"}',
            '{"one_of":"hunter2"}',
            '{"text":"hunter2%s"}' % ("x" * 60),
            '{"checked":"hunter2"}',
            '{"asserted":"hunter2"}',
            '{"tagged":{"kind":"hunter2"}}',
            '{"union":{"kind":"hunter2"}}',
            '{"union":"hunter2"}',
            '{"text":"hunter2',
            '{"text":hunter2}',
        ],
    )
    def test_b15_an_error_never_holds_what_was_sent(self, message: str):
        with pytest.raises(InvalidMessage) as caught:
            decode(envelope("test_protocol.secretive", message))
        told = f"{caught.value} {caught.value!r} {caught.value.problem} {caught.value.args}"
        assert "hunter2" not in told
        assert caught.value.__cause__ is None, "pydantic's own error echoes its input"
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "raw",
        [
            envelope("a\r\nERROR forged", "{}"),
            envelope("test_protocol.secretive", '{"a\\r\\nERROR forged":1}'),
            envelope("test_protocol.holder", '{"table":{"a\\r\\nERROR forged":"x"}}'),
            envelope("\x1b[31m" + "x" * 1_000_000, "{}"),
        ],
        ids=["id", "extra key", "dict key", "ANSI, 1 MB"],
    )
    def test_b34_what_is_logged_of_it_stays_in_its_line(self, raw: str, caplog: pytest.LogCaptureFixture):
        with pytest.raises(InvalidMessage) as caught:
            decode(raw)
        logging.getLogger("jararaca_ws").error("refused: %s", caught.value)
        line = caplog.records[-1].getMessage()
        assert line.isprintable()
        assert len(line) < 400


_text = st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"]))


class TestPublications:
    @given(_text, st.lists(_text, min_size=1), st.binary())
    def test_what_is_published_arrives(self, publication_id: str, rooms: list[str], data: bytes):
        received = decode_publication(rooms[0], encode_publication(publication_id, rooms, data))
        assert received == (publication_id, rooms, None, data)

    @given(_text, st.lists(_text, min_size=1), st.binary())
    def test_what_is_kept_arrives_with_its_place(self, publication_id: str, rooms: list[str], data: bytes):
        payload = kept_header(publication_id, rooms) + b',"epoch",7]\n' + data
        assert decode_publication(rooms[0], payload) == (publication_id, rooms, ("epoch", 7), data)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"x",
            b"1",
            b"2\nx",
            b"\n",
            b"1[]\n",
            b"1[1,2]\n",
            b'1["id"]\n',
            b'1["id","room"]\n',
            b'1["id",["room"],"epoch"]\n',
            b'1["id",["room"],"epoch",0]\n',
            b'1"id\n',
            b"\xff\n",
            b"1\xff\n",
        ],
    )
    def test_f47_what_is_none_is_a_value_error(self, payload: bytes):
        with pytest.raises(ValueError):  # noqa: PT011 - every ValueError, that is the contract with the backend
            decode_publication("a", payload)


def test_close_codes_say_whether_to_come_back():
    private = [code for code in CloseCode if code >= 4000]
    back = {
        CloseCode.SHUTDOWN,
        CloseCode.TOKEN_EXPIRED,
        CloseCode.SLOW_CONSUMER,
        CloseCode.INSUFFICIENT_STATE,
        CloseCode.TOO_MANY_REQUESTS,
    }
    assert {code for code in private if code < 4500} == back
    assert all(code < 5000 for code in private)


def test_control_messages_have_the_reserved_prefix():
    assert encode(Gap(room="a")).data == b'{"MESSAGE_ID":"jararaca.gap","message":{"room":"a"}}'
    assert encode(Gap(room=None)).data == b'{"MESSAGE_ID":"jararaca.gap","message":{"room":null}}'
    error = encode(ErrorMessage(code="bad_request", id="1"))
    assert error.data == b'{"MESSAGE_ID":"jararaca.error","message":{"code":"bad_request","id":"1"}}'
