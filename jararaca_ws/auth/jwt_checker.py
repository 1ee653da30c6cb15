"""JSON Web Tokens as ``authenticate=``. The only module that imports PyJWT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jararaca_ws.auth.user import PresentedToken, User
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError, TokenExpired

__all__ = ["JWTChecker"]

_HMAC = ("HS256", "HS384", "HS512")
_PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class JWTChecker:
    """Checks JSON Web Tokens: for ``authenticate=``, or within one of your own, ``user = await checker(token)``.

    Signature, ``exp`` (which a token must have), ``nbf``, audience and issuer. The user's id is ``sub``, the name of
    the token ``jti``, and the claims are all of them. Needs ``pip install jararaca-ws[auth]``.

    Args:
        key: the secret, or the public key in PEM. A mapping: by the ``kid`` of the token's header, while keys change.
        algorithms: that a token may have; all with a secret, or all with a public key.
        audience: that the token must be for; None: a token with an audience is refused.
        issuer: that the token must be of; None: of any.
        leeway: by how much the clock of the issuer may differ. A token counts for so much longer.

    Raises:
        ConfigurationError: PyJWT is not installed, an algorithm that is none, a secret that is too short.
    """

    def __init__(
        self,
        key: str | bytes | Mapping[str, str | bytes],
        *,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | None = None,
        leeway: timedelta = timedelta(seconds=10),
    ) -> None:
        self._algorithms = [algorithms] if isinstance(algorithms, str) else list(algorithms)
        self._audience = audience
        self._issuer = issuer
        if leeway < timedelta(0):
            raise ConfigurationError(f"leeway={leeway!r} cannot be", "give one that is not negative")
        self._leeway = leeway
        _check_algorithms(self._algorithms)
        # By the kid of a token; by None where there is one for all.
        keys = key if isinstance(key, Mapping) else {None: key}
        if not keys:
            raise ConfigurationError("a JWTChecker has no key", "give the secret, or the public key")
        self._keys = {kid: _prepared(one, self._algorithms) for kid, one in keys.items()}

    async def __call__(self, token: PresentedToken) -> User:
        """Whose token it is.

        Raises:
            TokenExpired: it has expired.
            AuthenticationFailed: it does not count, for another reason.
        """
        jwt = _import_jwt()
        try:
            claims: dict[str, Any] = jwt.decode(
                token.value,
                self._key_of(jwt, token.value),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        # What they say may hold parts of the token; the last two are of JSON that is too deep, or a time too far away.
        except (jwt.PyJWTError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise AuthenticationFailed(f"the JWT does not count: {type(error).__name__}") from None
        return self._user(claims)

    def _key_of(self, jwt: Any, token: str) -> Any:
        kid = None if None in self._keys else str(jwt.get_unverified_header(token).get("kid"))
        if kid not in self._keys:
            raise AuthenticationFailed("the JWT does not count: no key of ours has its kid")
        return self._keys[kid]

    def _user(self, claims: dict[str, Any]) -> User:
        try:
            expires_at = datetime.fromtimestamp(claims["exp"], UTC) + self._leeway
            issued_at = datetime.fromtimestamp(claims["iat"], UTC) if "iat" in claims else None
        except (OverflowError, OSError, ValueError, TypeError):
            raise AuthenticationFailed("the JWT does not count: a time that is none") from None
        token_id = claims.get("jti")
        return User(
            id=claims["sub"],
            claims=claims,
            expires_at=expires_at,
            issued_at=issued_at,
            token_id=token_id if isinstance(token_id, str) else None,
        )


def _check_algorithms(chosen: list[str]) -> None:
    """A public key must never be taken for a secret: so they are all of one kind."""
    if not chosen or not (all(one in _HMAC for one in chosen) or all(one in _PUBLIC for one in chosen)):
        raise ConfigurationError(
            f"algorithms={chosen!r} cannot be",
            f"name those of your issuer, of one kind: {', '.join(_HMAC)}; or {', '.join(_PUBLIC)}",
        )


def _prepared(key: str | bytes, algorithms: list[str]) -> Any:
    """A key that was read once, and not for each token."""
    jwt = _import_jwt()
    if algorithms[0] in _HMAC:
        length = len(key.encode() if isinstance(key, str) else key)
        wanted = max(int(one[2:]) // 8 for one in algorithms)
        if length < wanted:
            raise ConfigurationError(
                f"a secret of {length} bytes is too short for {', '.join(algorithms)}",
                f"it has at least {wanted}: secrets.token_bytes({wanted})",
            )
        return key
    for algorithm in algorithms:
        try:
            return jwt.get_algorithm_by_name(algorithm).prepare_key(key)
        except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError):
            continue  # of another kind; what they say may hold the key
    raise ConfigurationError(
        f"the key of a JWTChecker is none for {', '.join(algorithms)}",
        "give the public key in PEM; pip install 'jararaca-ws[auth]' has what reads it",
    )


def _import_jwt() -> Any:
    try:
        import jwt
    except ImportError:
        raise ConfigurationError("JWTChecker needs PyJWT", "pip install 'jararaca-ws[auth]'") from None
    return jwt
