from __future__ import annotations

from typing import Any

import pytest

from jararaca_ws.limits.addresses import address_of


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.1", 5000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 5000), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::1", 5000), "2001:db8:1:2::/64"),
        (("2001:db8:1:3::1", 5000), "2001:db8:1:3::/64"),
        (("fe80::1%eth0", 5000), "fe80::/64"),
        (("testclient", 5000), "testclient"),
        (("", 0), None),
        (None, None),
    ],
)
def test_b23_what_counts_as_one_address(client: Any, address: str | None):
    assert address_of({"type": "websocket", "client": client}) == address


def test_headers_are_not_believed():
    scope = {"type": "websocket", "client": ("192.0.2.1", 1), "headers": [(b"x-forwarded-for", b"198.51.100.7")]}
    assert address_of(scope) == "192.0.2.1"
