"""What is easily written at the first try, and wrong: each is refused where it is written, with the cure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from jararaca_ws import (
    ConfigurationError,
    CookieToken,
    HeaderToken,
    MemoryWebSocketConnectionBackend,
    Microservice,
    RateLimitInterceptor,
    Room,
    User,
    WebSocketConnection,
    WebSocketConnectionManager,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketRequest,
    WebSocketRouter,
)
from jararaca_ws.testing import lifespan


class Asked(WebSocketRequest[int]):
    MESSAGE_ID = "mistakes.asked"


class Hall(Room, pattern="mistaken-hall-{number}"):
    number: int


async def somebody(token: Any) -> User | None:
    return None


def joining(judge: str) -> type[Room]:
    async def asked(self: Any, *what: Any) -> bool:
        return True

    def at_once(self: Any, *what: Any) -> bool:
        return True

    judges = {"authorize": asked, "authorize_send": asked, judge: at_once}
    return type("Mistaken", (Room,), judges)


def hooked_twice(hook: str) -> None:
    async def told(one: Any, two: Any = None, three: Any = None) -> None: ...

    # What asks for a connection by annotation needs one that is known here.
    told.__annotations__ = {"one": WebSocketConnection, "two": int, "three": int}
    router = WebSocketRouter("/twice")
    getattr(router, hook)(told)
    getattr(router, hook)(told)


def told_too_little(hook: str) -> None:
    async def told(connection: WebSocketConnection) -> None: ...

    getattr(WebSocketRouter("/little"), hook)(told)


def with_tokens(token_from: Any) -> None:
    WebSocketInterceptor(authenticate=somebody, token_from=token_from)


not_a_list = "is not a list: write "
MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: WebSocketInterceptor(MemoryWebSocketConnectionBackend), "is a class: give an instance"),
    (lambda: WebSocketInterceptor(settings={"max_rooms": 3}), r"write WebSocketSettings\("),
    (lambda: WebSocketInterceptor(presence=True), r"write PresenceSettings\("),
    (lambda: WebSocketInterceptor().install(Microservice()), "not a Microservice: a Microservice has its"),
    (lambda: WebSocketInterceptor().install(FastAPI(), interceptors=WebSocketInterceptor), not_a_list),
    (lambda: with_tokens(HeaderToken), not_a_list + r"token_from=\["),
    (lambda: with_tokens(HeaderToken()), not_a_list + r"token_from=\["),
    (lambda: with_tokens([CookieToken]), "token_from has <class"),
    (lambda: RateLimitInterceptor(5), r"5 is not a Rate: write Rate\("),
    (lambda: RateLimitInterceptor(timedelta(seconds=1)), "is not a Rate"),
    (lambda: WebSocketEndpoint("/ws", client_rooms=Hall), not_a_list + r"client_rooms=\["),
    (lambda: WebSocketEndpoint("/ws", client_rooms=[Hall], client_sends=Asked), not_a_list + "client_sends"),
    (lambda: WebSocketRouter("halls"), "'halls': begin it with a slash"),
    (lambda: joining("authorize"), "Mistaken.authorize is not async: write async def"),
    (lambda: joining("authorize_send"), "Mistaken.authorize_send is not async"),
    (lambda: hooked_twice("on_connect"), "an on_connect already"),
    (lambda: hooked_twice("on_disconnect"), "an on_disconnect already"),
    (lambda: hooked_twice("on_fallback"), "an on_fallback already"),
    (lambda: told_too_little("on_fallback"), "take three: the connection, what came and the error"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES)
def test_a_first_mistake_is_refused_where_it_is_written(mistake, said):
    with pytest.raises(ConfigurationError, match=said):
        mistake()


async def test_a_call_whose_timeout_is_a_number_asks_nobody():
    async with WebSocketConnectionManager(MemoryWebSocketConnectionBackend()) as manager:
        with pytest.raises(ConfigurationError, match="timeout=1 is not a timedelta"):
            await manager.call_user("ana", Asked(), timeout=1)  # type: ignore[arg-type]


async def test_a_microservice_that_is_given_to_a_server_does_not_start():
    with pytest.raises(RuntimeError, match="no ASGI application: serve it with `jararaca-ws serve`"):
        async with lifespan(Microservice()):
            pass
    with pytest.raises(ConfigurationError, match="no ASGI application"):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Microservice()), base_url="http://test") as client:
            await client.get("/")
