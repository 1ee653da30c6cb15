"""From which pages a browser may connect."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import Scope

from jararaca_ws.errors import ConfigurationError, OriginNotAllowed

__all__ = ["Origins"]

_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}


class Origins:
    """An allow-list of origins: scheme, host and port, compared whole. No patterns.

    Args:
        origins: ``https://app.example.com``; the port may be left out where it is the default of the scheme. ``"*"``
            by itself allows every page.

    Raises:
        ConfigurationError: one of them is no origin.
    """

    __slots__ = ("_allowed",)

    def __init__(self, origins: str | Iterable[str]) -> None:
        listed = [origins] if isinstance(origins, str) else list(origins)
        # None: every page.
        self._allowed: frozenset[str] | None = None if listed == ["*"] else frozenset(map(_of_list, listed))

    def check(self, scope: Scope, *, required: bool) -> None:
        """Whether the page may connect; a client that is no browser has none.

        Raises:
            OriginNotAllowed: it may not; or there is none, and it is ``required``.
        """
        if self._allowed is None:
            return
        found = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == b"origin"]
        if not found:
            if required:
                raise OriginNotAllowed(None)
            return
        if len(found) > 1 or _normal(found[0]) not in self._allowed:
            raise OriginNotAllowed(", ".join(found))


def _normal(origin: str) -> str | None:
    """One way to write an origin; None for what is none: ``null``, and whatever has a path or a user."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    default = _DEFAULT_PORTS.get(scheme, "")
    return f"{scheme}://{host}:{default if port is None else port.lstrip('0') or '0'}"


def _of_list(origin: str) -> str:
    normal = _normal(str(origin))
    if normal is None:
        raise ConfigurationError(
            f"allowed_origins has {origin!r}",
            'write scheme, host and port, as in "https://app.example.com"; or "*", and nothing else, for every page',
        )
    return normal
