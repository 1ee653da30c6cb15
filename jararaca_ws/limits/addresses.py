"""What counts as one address of a client."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

__all__ = ["address_of"]

_SITE_BITS = 64
"""Of an IPv6 address: whoever has one has all that begin with these."""


def address_of(scope: Scope) -> str | None:
    """The client's address as the server says it, an IPv6 one without the half that a client may choose.

    Headers are not looked at: which proxies may be believed is the server's to know (``FORWARDED_ALLOW_IPS``). None
    where there is none: behind a Unix socket, say.
    """
    client = scope.get("client")
    if not client or not client[0]:
        return None
    host: str = client[0]
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address, _SITE_BITS), strict=False))
