"""The README's example runs as it is written."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jararaca_ws import Microservice, create_http_server
from jararaca_ws.testing import connect, lifespan

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def example() -> Iterator[Microservice]:
    source = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert source is not None
    assert len([line for line in source[1].splitlines() if line.strip()]) <= 30
    module = types.ModuleType("readme_example")
    sys.modules[module.__name__] = module  # annotations are resolved in their module
    exec(compile(source[1], str(README), "exec"), module.__dict__)
    yield module.app  # type: ignore[attr-defined]
    del sys.modules[module.__name__]


async def test_the_example_does_what_the_readme_says(example: Microservice):
    app = create_http_server(example)
    transport = httpx.ASGITransport(app)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        connect(app, "/chat/ws/lobby") as browser,
    ):
        response = await http.post("/chat/lobby", params={"text": "hello"})
        assert response.status_code == 200
        assert await browser.receive_json() == {"MESSAGE_ID": "chat.said", "message": {"text": "hello"}}
        assert await browser.receive_json() == {"MESSAGE_ID": "chat.said", "message": {"text": "ha, hello"}}


def test_every_page_that_the_readme_names_is_there():
    for target in re.findall(r"\]\(([^)#]+?\.md)", README.read_text()):
        assert (README.parent / target).is_file(), target
