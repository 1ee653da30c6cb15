"""Whatever clients write where a token is looked for: it is refused in words of ours, or it is a token."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from jararaca_ws.auth.jwt_checker import JWTChecker
from jararaca_ws.auth.origins import Origins
from jararaca_ws.auth.sources import CookieToken, HeaderToken, QueryTicket, SubprotocolToken, presented
from jararaca_ws.auth.user import PresentedToken
from jararaca_ws.errors import AuthenticationFailed, InvalidMessage, JararacaError, OriginNotAllowed
from jararaca_ws.wire.authentication import TokenMessage, decode_token, is_token

SECRET = "s" * 32
APP = "https://app.example.com"
SOURCES = (HeaderToken(), SubprotocolToken(), CookieToken("session"), QueryTicket())
LATIN = some.text(some.characters(max_codepoint=255), max_size=64)
NAMES = some.sampled_from(["authorization", "cookie", "origin", "sec-websocket-protocol", "x"])
TOKENS = some.one_of(LATIN, LATIN.map(lambda text: f"jararaca.token.{text}"), some.just("jararaca.v1"))
VALUES = some.one_of(LATIN, LATIN.map("Bearer {}".format), LATIN.map("session={}".format))


def outcome(call: Callable[[], Any]) -> Any:
    """What it returns; or what it refuses with, which is safe in a log."""
    try:
        return call()
    except (AuthenticationFailed, OriginNotAllowed, InvalidMessage) as refused:
        return refused if str(refused).isprintable() else pytest.fail("it is not safe in a log")


@given(
    headers=some.lists(some.tuples(NAMES, VALUES), max_size=6),
    offered=some.lists(TOKENS, max_size=6),
    query=some.one_of(some.binary(max_size=64), some.binary(max_size=64).map(lambda text: b"ticket=" + text)),
)
@settings(max_examples=100, deadline=None)
def test_b24_b26_a_handshake_has_a_token_or_none_or_is_refused(
    headers: list[tuple[str, str]], offered: list[str], query: bytes
):
    scope: dict[str, Any] = {
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "subprotocols": offered,
        "query_string": query,
    }
    token = outcome(lambda: presented(scope, SOURCES))
    if isinstance(token, PresentedToken):
        assert 0 < len(token.value) <= 8192
        assert token.value.isprintable()
    if not isinstance(token, JararacaError):
        assert not any(one.startswith("jararaca.token.") for one in scope["subprotocols"])
    if outcome(lambda: Origins([APP]).check(scope, required=True)) is None:
        assert [value.lower().removesuffix(":443") for name, value in headers if name == "origin"] == [APP]


@given(raw=some.one_of(some.text(), some.text().map(lambda text: f'{{"MESSAGE_ID":"jararaca.authenticate",{text}}}')))
@settings(max_examples=100, deadline=None)
def test_b27_a_first_message_is_a_token_or_refused(raw: str):
    assert is_token(raw) in (True, False)
    message = outcome(lambda: decode_token(raw))
    assert isinstance(message, InvalidMessage | TokenMessage)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=some.text(max_size=200))
@settings(max_examples=100, deadline=None)
async def test_what_is_no_jwt_does_not_count(value: str):
    with pytest.raises(AuthenticationFailed):
        await JWTChecker(SECRET, algorithms=["HS256"])(PresentedToken(value, "header"))


@given(
    claims=some.dictionaries(
        some.sampled_from(["sub", "exp", "iat", "nbf", "aud", "iss", "jti", "x"]), JSON, max_size=8
    )
)
@settings(max_examples=100, deadline=None)
async def test_whatever_its_issuer_signs_is_a_user_or_refused(claims: dict[str, Any]):
    known = {"sub": "ana", "exp": time.time() + 3600, **claims}
    token = jwt.PyJWS().encode(json.dumps(known).encode(), SECRET, "HS256")  # past what PyJWT refuses to sign
    checker = JWTChecker(SECRET, algorithms=["HS256"])
    try:
        user = await checker(PresentedToken(token, "header"))
    except AuthenticationFailed:
        return
    assert isinstance(user.id, str)
    assert user.expires_at is not None
