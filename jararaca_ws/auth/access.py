"""How clients get in, as an endpoint, a router or the interceptor says it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from jararaca_ws.auth.origins import Origins
from jararaca_ws.auth.sources import CookieToken, HeaderToken, QueryTicket, SubprotocolToken, TokenSource
from jararaca_ws.auth.user import User
from jararaca_ws.errors import ConfigurationError

__all__ = ["INHERITED", "LET_IN_KEY", "PUBLIC", "Access", "AllowedOrigins", "Authenticate", "Inherited", "StatedAccess"]

Authenticate = Callable[..., Awaitable[User | None]]
"""Gets the `PresentedToken` by annotation, and what else a FastAPI function may have; None, or an
`AuthenticationFailed`, refuses."""

AllowedOrigins = str | Sequence[str]

LET_IN_KEY = "jararaca_ws.let_in"
"""Where the ASGI scope has the `Door` that has let this client in; False where one is still to do that."""


class Inherited(Enum):
    """What is said where nothing is: it is as the interceptor has it."""

    INHERITED = "inherited"


INHERITED: Final = Inherited.INHERITED

_DEFAULT_SOURCES: tuple[TokenSource, ...] = (HeaderToken(), SubprotocolToken())


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may connect.

    Attributes:
        authenticate: None: nobody is asked who they are, unless there are tickets.
        token_from: where tokens are looked for, in this order. Empty: everybody may connect.
        origins: None: from everywhere.
    """

    authenticate: Authenticate | None = None
    token_from: tuple[TokenSource, ...] = ()
    origins: Origins | None = None

    @property
    def is_public(self) -> bool:
        return not self.token_from


PUBLIC = Access()


@dataclass(frozen=True, slots=True)
class StatedAccess:
    """What an endpoint says of who may connect; the rest is as the interceptor has it."""

    authenticate: Authenticate | Inherited | None
    token_from: Sequence[TokenSource] | None
    allowed_origins: AllowedOrigins | None

    def over(self, default: Access, where: str) -> Access:
        """What is said, and for what is not, the default; ``where`` names the endpoint in errors.

        Raises:
            ConfigurationError: it cannot be: a cookie without ``allowed_origins``, say.
        """
        origins = default.origins if self.allowed_origins is None else Origins(self.allowed_origins)
        if self.authenticate is None and self.token_from is None:
            return Access(origins=origins)
        asked = default.authenticate if isinstance(self.authenticate, Inherited) else self.authenticate
        sources = _sources(self.token_from, asked, default, where)
        if any(isinstance(source, CookieToken) for source in sources) and origins is None:
            raise ConfigurationError(
                f"{where} takes a token from a cookie, and says nothing of origins",
                "any page that its user visits could connect: give allowed_origins=",
            )
        return Access(authenticate=asked, token_from=sources, origins=origins)


def _sources(
    token_from: Sequence[TokenSource] | None, asked: Authenticate | None, default: Access, where: str
) -> tuple[TokenSource, ...]:
    if token_from is None:
        return default.token_from or (() if asked is None else _DEFAULT_SOURCES)
    given: Any = token_from
    if isinstance(given, TokenSource | type):
        raise ConfigurationError(f"{where}: token_from={given!r} is not a list", "write token_from=[...]")
    sources: tuple[Any, ...] = tuple(given)
    for source in sources:
        if isinstance(source, type) or not isinstance(source, TokenSource):
            raise ConfigurationError(f"{where}: token_from has {source!r}", "give CookieToken(...), MessageToken()")
        if asked is None and not isinstance(source, QueryTicket):
            raise ConfigurationError(f"{where} says where tokens are, and not who looks at them", "give authenticate=")
    if not sources:
        raise ConfigurationError(f"{where}: token_from is empty", "authenticate=None lets everybody connect")
    return sources
