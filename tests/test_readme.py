"""The README's examples run as they are written."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType

import httpx
from fastapi import FastAPI

from jararaca_ws import create_http_server
from jararaca_ws.testing import InLoopWebSocket, connect, lifespan

README = Path(__file__).parents[1] / "README.md"


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


@contextmanager
def example(name: str) -> Iterator[tuple[str, ModuleType]]:
    """The source of an example, and the module that it makes."""
    source = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert source is not None
    module = ModuleType(f"readme_example_{name.removesuffix('.py')}")
    sys.modules[module.__name__] = module  # annotations are resolved in their module
    try:
        exec(compile(source[1], str(README), "exec"), module.__dict__)
        yield source[1], module
    finally:
        del sys.modules[module.__name__]


@asynccontextmanager
async def running(app: FastAPI, path: str) -> AsyncIterator[tuple[httpx.AsyncClient, InLoopWebSocket]]:
    transport = httpx.ASGITransport(app)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        connect(app, path) as browser,
    ):
        yield http, browser


async def test_thirty_lines_do_what_the_readme_says():
    with example("README.py") as (source, module):
        assert len(lines(source)) <= 30
        async with running(create_http_server(module.app), "/chat/ws/lobby") as (http, browser):
            response = await http.post("/chat/lobby", params={"text": "hello"})
            assert response.status_code == 200
            assert await browser.receive_json() == {"MESSAGE_ID": "chat.said", "message": {"text": "hello"}}
            assert await browser.receive_json() == {"MESSAGE_ID": "chat.said", "message": {"text": "ha, hello"}}


async def test_ten_lines_make_an_application_the_host():
    with example("README_fastapi.py") as (source, module):
        assert len([line for line in lines(source) if not line.endswith("# yours")]) <= 10
        async with running(module.app, "/ws/lobby") as (http, browser):
            assert (await http.post("/lobby", params={"text": "hello"})).status_code == 200
            assert await browser.receive_json() == {"MESSAGE_ID": "room.said", "message": {"text": "hello"}}


def test_every_page_that_the_readme_names_is_there():
    for target in re.findall(r"\]\(([^)#]+?\.md)", README.read_text()):
        assert (README.parent / target).is_file(), target
