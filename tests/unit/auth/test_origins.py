from __future__ import annotations

from typing import Any

import pytest

from jararaca_ws.auth.origins import Origins
from jararaca_ws.errors import ConfigurationError, OriginNotAllowed

APP = "https://app.example.com"


def scope(*origins: str) -> dict[str, Any]:
    return {"headers": [(b"host", b"x"), *((b"origin", origin.encode("latin-1")) for origin in origins)]}


@pytest.mark.parametrize(
    "origin", [APP, f"{APP}:443", "HTTPS://App.Example.COM", "http://localhost:3000", "http://[::1]:8080"]
)
def test_b24_an_origin_of_the_list_may_connect(origin: str):
    Origins([APP, "http://localhost:3000", "http://[::1]:8080"]).check(scope(origin), required=True)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://app.example.com.evil.io",
        "https://evil-app.example.com",
        "https://evilapp.example.com",
        "https://sub.app.example.com",
        "https://example.com",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com:443:1",
        "https://app.example.com@evil.io",
        "https://evil.io#https://app.example.com",
        "https://evil.io/https://app.example.com",
        "https://app.example.com/",
        " https://app.example.com",
        "https://app.example.com.",
        "https://app_example.com",
        "https://\u0430pp.example.com".encode().decode("latin-1"),  # a Cyrillic letter
        "file://",
        "*",
    ],
)
def test_b24_any_other_origin_may_not(origin: str):
    with pytest.raises(OriginNotAllowed):
        Origins([APP]).check(scope(origin), required=False)


def test_b24_two_origins_are_none():
    with pytest.raises(OriginNotAllowed):
        Origins([APP]).check(scope(APP, APP), required=False)


def test_b25_who_has_no_origin_may_connect_where_it_is_not_required():
    Origins([APP]).check(scope(), required=False)
    with pytest.raises(OriginNotAllowed):
        Origins([APP]).check(scope(), required=True)


@pytest.mark.parametrize("every", ["*", ["*"]])
def test_every_page_may_connect_by_name_only(every: Any):
    Origins(every).check(scope("null"), required=True)
    Origins(every).check(scope(), required=True)


@pytest.mark.parametrize(
    "listed",
    [
        "app.example.com",
        "https://",
        f"{APP}/",
        f"{APP}/path",
        "https://*.example.com",
        ["*", APP],
        "null",
        "",
        [7],
        "https://u:p@a",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(listed: Any):
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        Origins(listed)


def test_an_empty_list_lets_no_page_in():
    with pytest.raises(OriginNotAllowed):
        Origins([]).check(scope(APP), required=False)
