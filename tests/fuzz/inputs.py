"""What hostile clients write: strategies that make nearly right input, and input that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from typing import Any

import msgpack
from hypothesis import strategies as st

MARK = "hunter2"
"""Stands in values of what is written, and comes back in nothing."""

_plain = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "\x00", "a\r\nb", "\x1b[31m", "a,b", "*", "\u202e", "e\u0301", "x" * 300, "\U0001f426"]),
)
"""For what we may quote, or send back: names."""

_secret = st.one_of(_plain, st.text(max_size=10).map(lambda text: text + MARK))


def _values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    numbers = st.integers(-(2**70), 2**70) | st.sampled_from([0, -1, 2**53, 2**63, 2**64, 10**400]) | st.floats()
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_plain, inner, max_size=4),
        max_leaves=12,
    )


_names = _values(_plain)
values = _values(_secret)

# --- rooms ------------------------------------------------------------------------------------------------------------

rooms = st.one_of(_plain, _plain.map(lambda text: f"fuzz:{text}"), st.just("fuzz:a"))

# --- recovery ---------------------------------------------------------------------------------------------------------

_offsets = st.integers(0, 12) | st.integers(0, 12) | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=3)
_epochs = st.sampled_from(["EPOCH", "EPOCH", "EPOCH", "", "other"]) | st.text(max_size=70) | st.none() | st.integers()
_right = st.fixed_dictionaries({"epoch": st.sampled_from(["EPOCH", "", "other"]), "offset": st.integers(0, 2**63 - 1)})
_positions = _right | _right | st.fixed_dictionaries({"epoch": _epochs, "offset": _offsets})
_few = st.sampled_from(["a", "b"])
recovered_rooms = st.one_of(
    _names,
    st.dictionaries(_few | _plain, _positions, max_size=3),
    st.dictionaries(_few, _right, min_size=1),
    st.dictionaries(_few, _right, min_size=1),
)
"""The positions that a client comes back with; EPOCH stands for the one of the history."""

# --- messages ---------------------------------------------------------------------------------------------------------

_OURS = ("join", "leave", "send", "recover", "reply", "error", "authenticate", "gap", "presence", "")
_ids = st.sampled_from(["fuzz.said", "fuzz.asked", "fuzz.nobody", *(f"jararaca.{name}" for name in _OURS)]) | _names
_refs = st.text(min_size=1, max_size=8) | _names
_said = st.fixed_dictionaries({}, optional={"text": _secret, "number": values, "anything": values})
_room_lists = st.lists(rooms, max_size=4) | st.just(["fuzz:a"]) | _names
_sent = st.fixed_dictionaries({"n": st.integers() | values})
_fields = st.one_of(
    values,
    _said,
    st.fixed_dictionaries({"rooms": _room_lists | recovered_rooms}),
    st.fixed_dictionaries({"room": rooms, "MESSAGE_ID": _ids, "message": st.dictionaries(_plain, values, max_size=2)}),
    st.fixed_dictionaries({"token": _secret}),
)
_more = {"id": values, "room": rooms, "epoch": _epochs, "offset": _offsets, "more": values}


def _envelope(ids: st.SearchStrategy[Any], fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"MESSAGE_ID": ids, "message": fields}, optional={"ref": _refs, **_more})


_envelopes = st.one_of(
    _envelope(st.just("fuzz.said"), _said),
    _envelope(st.sampled_from(["jararaca.join", "jararaca.leave"]), st.fixed_dictionaries({"rooms": _room_lists})),
    _envelope(
        st.just("jararaca.send"),
        st.fixed_dictionaries({"room": rooms, "MESSAGE_ID": st.just("fuzz.kept"), "message": _sent}),
    ),
    _envelope(_ids, _fields),
)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@st.composite
def _broken(draw: st.DrawFn) -> str:
    """JSON with a piece cut out, doubled, or in the wrong place."""
    text = _as_json(draw(_envelopes))
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, len(text)))
    return (
        text[:begin]
        + draw(st.sampled_from(["", text[begin:end] * 2, "\\ud800", "NaN", "[" * 300, "9" * 5000]))
        + text[end:]
    )


def _encodable(text: str) -> bool:
    """A text frame is UTF-8, so a server hands on nothing else."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


messages = st.one_of(_envelopes.map(_as_json), _broken(), _names.map(_as_json), st.text()).filter(_encodable)

_JOIN = '{"MESSAGE_ID":"jararaca.join","message":{"rooms":["fuzz:a"]}}'

conversations = st.tuples(st.sampled_from([[], [_JOIN]]), st.lists(messages, min_size=1, max_size=4)).map(
    lambda parts: [*parts[0], *parts[1]]
)
"""The texts of one client; it may be in a room."""

# --- msgpack ----------------------------------------------------------------------------------------------------------


def _packed(text: str) -> bytes:
    return msgpack.packb(json.loads(text), default=repr, use_bin_type=True)


@st.composite
def _broken_pack(draw: st.DrawFn) -> bytes:
    """A packed envelope with a few other bytes in it: of another type, a length that is not there, an extension."""
    data = draw(_envelopes.map(_as_json).filter(_is_packable).map(_packed))
    place = draw(st.integers(0, len(data)))
    return (
        data[:place]
        + draw(st.sampled_from([b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc7", b"\x91" * 2000, b"\xa5\xff"]))
        + data[place:]
    )


def _is_packable(text: str) -> bool:
    try:
        return bool(_packed(text))
    except (ValueError, OverflowError):  # a number that msgpack has no form for, or a surrogate
        return False


packs = st.lists(
    _envelopes.map(_as_json).filter(_is_packable).map(_packed) | _broken_pack() | st.binary(max_size=60),
    min_size=1,
    max_size=4,
)
"""The binary frames of one client."""

# --- frames -----------------------------------------------------------------------------------------------------------


@st.composite
def _frame(draw: st.DrawFn) -> bytes:
    """A frame that may have any opcode, any bit, any mask and a length that is not its own."""
    payload = draw(
        st.one_of(messages.map(str.encode), messages.map(str.encode), st.binary(max_size=200), st.just(b"\x03\xe8"))
    )
    opcode = draw(st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2, 8, 9, 10, *range(16)]))
    first = draw(st.sampled_from([0x80] * 12 + [0, 0, 0, 0xC0, 0xA0, 0x90])) | opcode
    length = draw(st.sampled_from([len(payload)] * 20 + [0, 125, 126, 65536, 2**32, 2**63, 2**64 - 1]))
    form = draw(st.sampled_from(["short"] * 9 + ["middle", "long"]))
    masked = draw(st.sampled_from([0x80] * 20 + [0]))
    if form == "short" and length < 126:
        head = struct.pack("!BB", first, masked | length)
    elif form == "middle" or length < 2**16:
        head = struct.pack("!BBH", first, masked | 126, length & 0xFFFF)
    else:
        head = struct.pack("!BBQ", first, masked | 127, length)
    if not masked:
        return head + payload
    key = draw(st.sampled_from([b"\0\0\0\0", b"\x01\x02\x03\x04"]))
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


frames = st.lists(_frame() | _frame() | _frame() | st.binary(max_size=20), min_size=1, max_size=8)
"""What is written, a piece at a time."""

# --- tokens -----------------------------------------------------------------------------------------------------------

SECRET = b"the secret of the fuzz run, which has 32 bytes and more"

_FAR_AWAY = 4_102_444_800  # the year 2100
_algorithms = st.sampled_from(["HS256"] * 4 + ["none", "None", "HS512", "RS256", "", 5])
_claims = st.fixed_dictionaries(
    {
        "sub": st.sampled_from(["ana", "ana", "ana"]) | _names,
        "exp": st.just(_FAR_AWAY) | st.integers(-(2**70), 2**70) | _names,
    },
    optional=dict.fromkeys(("aud", "iss", "nbf", "iat", "jti", "more"), _names),
)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@st.composite
def _token(draw: st.DrawFn) -> tuple[str, bool]:
    """A JSON Web Token, and whether it may count: it is signed with our secret, by the algorithm that is wanted."""
    header = {
        "alg": draw(_algorithms),
        "typ": "JWT",
        **draw(st.dictionaries(st.sampled_from(["kid", "crit", "b64"]), _names)),
    }
    signed = ".".join(_base64url(_as_json(part).encode("utf-8", "replace")) for part in (header, draw(_claims)))
    secret = draw(st.sampled_from([SECRET, SECRET, SECRET, b"", b"another"]))
    signature = _base64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())
    kept = draw(st.sampled_from([signature] * 4 + ["", signature[:-2], signature + MARK]))
    is_ours = secret == SECRET and header["alg"] == "HS256" and kept == signature
    return f"{signed}.{kept}", is_ours


tokens = _token() | _token() | _token() | _secret.map(lambda text: (text, False))

# --- handshakes -------------------------------------------------------------------------------------------------------

_LIKELY = [
    ("Sec-WebSocket-Protocol", "jararaca.v1"),
    ("Sec-WebSocket-Protocol", "jararaca.v1, jararaca.recover"),
    ("Sec-WebSocket-Protocol", "jararaca.v1, jararaca.token." + base64.urlsafe_b64encode(MARK.encode()).decode()),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits; " + MARK),
    ("Origin", "https://app.example"),
    ("Origin", "https://app.example.evil.example"),
    ("Origin", "null"),
    ("Cookie", "session=" + MARK + "; session="),
    ("Authorization", "Bearer " + MARK),
    ("X-Forwarded-For", "127.0.0.1, " + MARK),
]
_UNLIKELY = [
    *("Sec-WebSocket-Version", "Sec-WebSocket-Key", "Connection", "Upgrade", "Host"),
    *("Content-Length", "Transfer-Encoding", "Expect"),
]
_visible = st.text('abc;,= \t"%/.-', max_size=20).map(lambda text: text + MARK)
_likely_names = st.sampled_from([name for name, _ in _LIKELY])
_any_header = st.tuples(
    _likely_names | st.sampled_from(_UNLIKELY) | st.text("abc-\x00 :\u00e9\r\n", min_size=1, max_size=6),
    _secret | _visible | st.sampled_from(["13", "websocket", "keep-alive, Upgrade", "\r\nSet-Cookie: a", MARK * 2000]),
)
_headers = st.sampled_from(_LIKELY) | st.sampled_from(_LIKELY) | st.tuples(_likely_names, _visible) | _any_header

handshakes = st.tuples(
    st.sampled_from(
        ["/typed"] * 6 + ["/in/a", "/typed?token=" + MARK, "/nothing", "*", "//", "/in/%00", "/in/%C3%28", ""]
    ),
    st.lists(_headers, max_size=4),
    st.sampled_from([True] * 5 + [False]),
)
"""The path, headers, and whether those of a handshake come before them."""
