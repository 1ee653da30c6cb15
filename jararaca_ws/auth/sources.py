"""Where a client may put its token."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import parse_qsl

from starlette.requests import cookie_parser
from starlette.types import Scope

from jararaca_ws.auth.user import PresentedToken
from jararaca_ws.errors import AuthenticationFailed, ConfigurationError

__all__ = [
    "MAX_TOKEN",
    "TOKEN_SUBPROTOCOL",
    "CookieToken",
    "HeaderToken",
    "MessageToken",
    "QueryTicket",
    "SubprotocolToken",
    "TokenSource",
    "checked",
    "presented",
]

MAX_TOKEN = 8192
"""Characters; longer ones are refused unseen."""

TOKEN_SUBPROTOCOL = "jararaca.token."  # not one: what a name begins with
"""``jararaca.token.<base64url without padding>`` among the offered subprotocols is a token."""


@dataclass(frozen=True, slots=True)
class HeaderToken:
    """A header of the handshake: ``Authorization: Bearer <token>``. Browsers cannot send one.

    Attributes:
        scheme: what stands before the token, in any case; "": the whole header is the token.
    """

    kind: ClassVar[Literal["header"]] = "header"

    name: str = "authorization"
    scheme: str = "Bearer"

    def find(self, scope: Scope) -> str | None:
        found = _header(scope, self.name)
        if found is None or not self.scheme:
            return found
        scheme, _, token = found.partition(" ")
        return token.strip() if scheme.lower() == self.scheme.lower() else None


@dataclass(frozen=True, slots=True)
class CookieToken:
    """A cookie. Every page in the browser can have it sent, so the endpoint needs ``allowed_origins``."""

    kind: ClassVar[Literal["cookie"]] = "cookie"

    name: str

    def find(self, scope: Scope) -> str | None:
        found = _header(scope, "cookie", "; ")
        return None if found is None else cookie_parser(found).get(self.name)


@dataclass(frozen=True, slots=True)
class SubprotocolToken:
    """One of the offered subprotocols, ``jararaca.token.<base64url>``: what a browser can do.

    It is taken out of what is offered before anybody else looks, and so is never chosen. A browser wants one to be
    chosen, so it offers ``jararaca.v1`` as well, or one that the endpoint chooses.
    """

    kind: ClassVar[Literal["subprotocol"]] = "subprotocol"

    def find(self, scope: Scope) -> str | None:
        offered: list[str] = list(scope.get("subprotocols", ()))
        tokens = [one for one in offered if one.startswith(TOKEN_SUBPROTOCOL)]
        if not tokens:
            return None
        scope["subprotocols"] = kept = [one for one in offered if one not in tokens]
        scope["headers"] = _without_tokens(scope, kept)
        return _decoded(tokens[0].removeprefix(TOKEN_SUBPROTOCOL))


@dataclass(frozen=True, slots=True)
class MessageToken:
    """The first message, ``jararaca.authenticate``, where nothing else has a token. The handshake is accepted before.

    Whoever does not send it within ``auth_timeout`` is closed with 4502. Nothing else of the client is looked at
    before, and it is in no room.
    """

    kind: ClassVar[Literal["message"]] = "message"

    def find(self, scope: Scope) -> str | None:
        return None  # it is still to come


@dataclass(frozen=True, slots=True)
class QueryTicket:
    """A parameter of the query string with a ticket, which `mint_ticket` has made. Servers log query strings, so
    nothing that can be used twice or for long may stand there.
    """

    kind: ClassVar[Literal["ticket"]] = "ticket"

    name: str = "ticket"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigurationError(f"the query parameter {self.name!r} cannot hold a ticket", "give it a plain name")

    def find(self, scope: Scope) -> str | None:
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        return next((value for name, value in query if name == self.name), None)


TokenSource = HeaderToken | CookieToken | SubprotocolToken | MessageToken | QueryTicket


def presented(scope: Scope, sources: tuple[TokenSource, ...]) -> PresentedToken | None:
    """The token of a handshake, of the first source that has one. The others count for nothing, whatever they hold.

    Raises:
        AuthenticationFailed: what is there cannot be a token.
    """
    found: PresentedToken | None = None
    for source in sources:
        # All of them are looked at: what is among the subprotocols has to go from there anyway.
        value = source.find(scope)
        if value is not None and found is None:
            found = PresentedToken(checked(value), source.kind)
    return found


def checked(token: str) -> str:
    """A token that may be looked at.

    Raises:
        AuthenticationFailed: it is empty, too long, or not printable.
    """
    if not token or len(token) > MAX_TOKEN or not token.isprintable():
        raise AuthenticationFailed(f"a token of {len(token)} characters, or not printable")
    return token


def _header(scope: Scope, name: str, join: str | None = None) -> str | None:
    """A header; None where there is none, or several that cannot be joined: nobody knows which counts."""
    wanted = name.lower().encode("latin-1")
    found = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]
    if join is not None and found:
        return join.join(found)
    return found[0] if len(found) == 1 else None


def _without_tokens(scope: Scope, kept: list[str]) -> list[tuple[bytes, bytes]]:
    headers = [(key, value) for key, value in scope["headers"] if key.lower() != b"sec-websocket-protocol"]
    return [*headers, (b"sec-websocket-protocol", ", ".join(kept).encode("latin-1"))] if kept else headers


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise AuthenticationFailed("the subprotocol with the token is not base64url of UTF-8") from None
