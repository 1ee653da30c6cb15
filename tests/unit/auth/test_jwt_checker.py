from __future__ import annotations

import base64
import builtins
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from jararaca_ws import JWTChecker
from jararaca_ws.auth.user import PresentedToken
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError, TokenExpired

SECRET = "s" * 32
NOW = datetime.now(UTC)  # and tokens count for an hour


def token(
    key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any
) -> PresentedToken:
    claims = {"sub": "ana", "exp": NOW + timedelta(hours=1), **claims}
    kept = {name: value for name, value in claims.items() if value is not None}
    return PresentedToken(jwt.encode(kept, key, algorithm=algorithm, headers=headers), "header")


async def test_a_good_token_says_who_it_is():
    checker = JWTChecker(SECRET, algorithms=["HS256"], audience="chat", issuer="me", leeway=timedelta(seconds=3))
    user = await checker(token(aud="chat", iss="me", jti="t-1", iat=NOW, role="admin"))
    assert (user.id, user.token_id, user.claims["role"]) == ("ana", "t-1", "admin")
    assert user.expires_at == NOW.replace(microsecond=0) + timedelta(hours=1, seconds=3)
    assert user.issued_at == NOW.replace(microsecond=0)
    assert "admin" not in repr(user)


@pytest.mark.parametrize(
    "bad",
    [
        token(key="t" * 32),
        token(algorithm="HS512", key="s" * 64),
        token(exp=None),
        token(sub=None),
        token(sub=7),
        token(exp="soon"),
        token(exp=10**30),
        token(nbf=NOW + timedelta(hours=1)),
        token(aud="other"),
        PresentedToken("a.b.c", "header"),
        PresentedToken("x", "header"),
        PresentedToken("ÿ" * 100, "header"),
        # The oldest trick: no signature, and a header that says so.
        PresentedToken(jwt.encode({"sub": "ana", "exp": NOW + timedelta(hours=1)}, None, algorithm="none"), "header"),
    ],
)
async def test_a_bad_token_does_not_count(bad: PresentedToken):
    with pytest.raises(AuthenticationFailed) as refused:
        await JWTChecker(SECRET, algorithms=["HS256"])(bad)
    assert bad.value not in str(refused.value)
    assert not isinstance(refused.value, TokenExpired)


async def test_an_audience_must_be_ours():
    checker = JWTChecker(SECRET, algorithms=["HS256"], audience="chat")
    with pytest.raises(AuthenticationFailed):
        await checker(token())
    with pytest.raises(AuthenticationFailed):
        await checker(token(aud="mail"))
    assert (await checker(token(aud=["mail", "chat"]))).id == "ana"


async def test_an_issuer_must_be_ours():
    with pytest.raises(AuthenticationFailed):
        await JWTChecker(SECRET, algorithms=["HS256"], issuer="me")(token(iss="you"))


async def test_the_leeway_is_for_tokens_that_have_just_expired():
    checker = JWTChecker(SECRET, algorithms=["HS256"], leeway=timedelta(seconds=30))
    now = datetime.now(UTC)
    assert (await checker(token(exp=now - timedelta(seconds=5)))).id == "ana"
    with pytest.raises(TokenExpired):
        await checker(token(exp=now - timedelta(seconds=40)))


async def test_public_keys_by_their_names_while_they_change():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = ec.generate_private_key(ec.SECP256R1())
    checker = JWTChecker({"old": pem(private), "new": pem(other)}, algorithms=["RS256", "ES256"])
    assert (await checker(token(private, "RS256", {"kid": "old"}))).id == "ana"
    assert (await checker(token(other, "ES256", {"kid": "new"}))).id == "ana"
    for headers in ({"kid": "none"}, None, {"kid": "new"}):
        with pytest.raises(AuthenticationFailed):
            await checker(token(private, "RS256", headers))


async def test_a_public_key_is_never_taken_for_a_secret():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = pem(private)
    # Signed by somebody who knows the public key, as everybody does.
    head, body = token("x" * 64).value.split(".")[:2]
    signature = hmac.new(public.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(AuthenticationFailed):
        await JWTChecker(public, algorithms=["RS256"])(PresentedToken(forged, "header"))
    with pytest.raises(ConfigurationError, match="algorithms"):
        JWTChecker(public, algorithms=["RS256", "HS256"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"key": SECRET, "algorithms": []}, "algorithms"),
        ({"key": SECRET, "algorithms": ["none"]}, "algorithms"),
        ({"key": SECRET, "algorithms": ["HS256", "none"]}, "algorithms"),
        ({"key": "short", "algorithms": ["HS256"]}, "too short"),
        ({"key": SECRET, "algorithms": ["HS512"]}, "too short"),
        ({"key": "", "algorithms": ["HS256"]}, "too short"),
        ({"key": {}, "algorithms": ["HS256"]}, "no key"),
        ({"key": "no PEM", "algorithms": ["RS256"]}, "is none for RS256"),
        ({"key": SECRET, "algorithms": ["HS256"], "leeway": timedelta(seconds=-1)}, "leeway"),
    ],
)
def test_what_cannot_be_safe_is_refused_at_the_start(arguments: dict[str, Any], said: str):
    with pytest.raises(ConfigurationError, match=said) as refused:
        JWTChecker(**arguments)
    assert "no PEM" not in str(refused.value)


def test_without_pyjwt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jwt":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install 'jararaca-ws\[auth\]'"):
        JWTChecker(SECRET, algorithms=["HS256"])


def pem(private: Any) -> str:
    public = private.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = public.public_bytes(serialization.Encoding.PEM, form)
    return encoded.decode()
