"""msgpack at the edge. ``tests/vectors/msgpack.json`` pins it, in hex, for clients in any language.

``encode``: an envelope as JSON and as what a msgpack client gets; ``decode``: what such a client may send, and the
JSON that it means, or the error code that it makes.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jararaca_ws.errors import ConfigurationError, InvalidMessage
from jararaca_ws.wire import packing
from jararaca_ws.wire.packing import check_can_pack, pack, unpack
from jararaca_ws.wire.protocol import (
    MSGPACK_SUBPROTOCOL,
    SUBPROTOCOL,
    agreed_subprotocol,
    decode,
    decode_json,
)
from tests.unit.test_vectors import CLASSES

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "msgpack.json").read_text(encoding="ascii"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def _ids(vector: dict[str, Any]) -> str:
    return str(vector.get("why", vector.get("json")))[:60]


@pytest.mark.parametrize("vector", VECTORS["encode"], ids=_ids)
def test_encode(vector: dict[str, Any]):
    packed = pack(vector["json"].encode())
    assert packed is not None
    assert packed.hex() == vector["msgpack"]


def _decoded(vector: dict[str, Any]) -> Any:
    """What a reader makes of it: the pump gives it an empty text for what is no msgpack."""
    try:
        text = unpack(bytes.fromhex(vector["msgpack"]))
    except ValueError:
        text = ""
    value = decode_json(text)
    if not isinstance(value, dict) or "message" not in value:
        decode(text)
    return value


@pytest.mark.parametrize("vector", VECTORS["decode"], ids=_ids)
def test_decode(vector: dict[str, Any]):
    assert CLASSES
    if "error" in vector:
        with pytest.raises(InvalidMessage) as caught:
            _decoded(vector)
        assert caught.value.code == vector["error"]
    else:
        assert json.loads(unpack(bytes.fromhex(vector["msgpack"]))) == json.loads(vector["json"])


@given(VALUES)
def test_what_was_packed_is_the_same_when_it_is_unpacked(value: Any):
    packed = pack(json.dumps(value).encode())
    assert packed is not None
    again = json.loads(unpack(packed))
    assert again == value
    assert repr(again) == repr(value), "a float stays a float"


@pytest.mark.parametrize(
    "text", ["", "hello", "{", '{"a":NaN}', "NaN", '"\\ud800"', str(2**64), str(-(2**63) - 1), "[" * 300 + "]" * 300]
)
def test_what_msgpack_has_no_form_for_is_not_packed(text: str):
    assert pack(text.encode()) is None


def test_random_bytes_raise_nothing_but_a_value_error():
    random.seed(7)
    for _ in range(20_000):
        data = random.randbytes(random.randrange(16))
        try:
            text = unpack(data)
        except ValueError:
            continue
        assert isinstance(text, str)


@pytest.mark.parametrize("length", [1024, 1025, 64 * 1024])
@pytest.mark.parametrize("array", [b"\xdc%b", b"\xdd\x00\x00%b"])
def test_arrays_in_arrays_that_promise_much_take_no_room_for_it(array: bytes, length: int):
    """The unpacker makes room for what each says that it has, before anything of it has come."""
    for count in (255, 4096, 8192, min(length, 65535)):
        data = ((array % count.to_bytes(2)) * 1023 + bytes(length))[:length]
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"incomplete|exceeds"):
                unpack(data)
            assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
        finally:
            tracemalloc.stop()


def test_what_goes_on_after_a_whole_value_is_refused():
    whole = packing.msgpack.packb([0] * 2000)
    assert json.loads(unpack(whole)) == [0] * 2000
    for data in (whole[:-1], whole + b"\x00", whole + b"\xdd\x00\x00\xff\xff"):
        with pytest.raises(ValueError, match=r"incomplete|extra data"):
            unpack(data)


BOTH = [MSGPACK_SUBPROTOCOL, SUBPROTOCOL]


@pytest.mark.parametrize(
    ("offered", "agreed", "without_the_extra"),
    [
        ([], None, None),
        (["other"], None, None),
        ([SUBPROTOCOL], SUBPROTOCOL, SUBPROTOCOL),
        ([MSGPACK_SUBPROTOCOL], MSGPACK_SUBPROTOCOL, None),
        (BOTH, MSGPACK_SUBPROTOCOL, SUBPROTOCOL),
        (BOTH[::-1], SUBPROTOCOL, SUBPROTOCOL),
        (["other", *BOTH], MSGPACK_SUBPROTOCOL, SUBPROTOCOL),
    ],
)
def test_the_first_that_the_client_offers_is_agreed_to(
    offered: list[str], agreed: str | None, without_the_extra: str | None, monkeypatch: pytest.MonkeyPatch
):
    assert agreed_subprotocol(offered) == agreed
    check_can_pack()
    monkeypatch.setattr(packing, "msgpack", None)
    assert agreed_subprotocol(offered) == without_the_extra
    with pytest.raises(ConfigurationError, match=r'pip install "jararaca-ws\[msgpack\]"'):
        check_can_pack()
