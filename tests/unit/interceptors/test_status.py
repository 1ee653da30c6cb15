"""``GET /status``: for those who may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import SecretStr

from jararaca_ws import (
    ConfigurationError,
    Microservice,
    Statistics,
    StatusInterceptor,
    WebSocketInterceptor,
    create_http_server,
    status_router,
)
from jararaca_ws.figures import InstanceStatistics
from jararaca_ws.testing import lifespan

TOKEN = "0123456789abcdef"


@asynccontextmanager
async def asked(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
        yield http


def served(**options: Any) -> FastAPI:
    return create_http_server(Microservice(interceptors=[StatusInterceptor(**options), WebSocketInterceptor()]))


def installed(**options: Any) -> FastAPI:
    app, interceptor = FastAPI(), WebSocketInterceptor()
    interceptor.install(app)
    app.include_router(status_router(interceptor.manager, **options), prefix="/status")
    return app


hosts = pytest.mark.parametrize("host", [served, installed])


@hosts
@pytest.mark.parametrize("token", [TOKEN, SecretStr(TOKEN)], ids=["text", "secret"])
async def test_who_has_the_token_sees_them(host: Any, token: Any):
    async with asked(host(token=token)) as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await http.get("/status", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        said = Statistics.model_validate(answer.json())
        assert (len(said.instances), said.missing) == (1, 0)
        one = InstanceStatistics.model_validate((await http.get("/status/instance", headers=headers)).json())
        assert one.instance_id == said.instances[0].instance_id


@hosts
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer "}, {"Authorization": f"bearer {TOKEN}x"}, {"Authorization": TOKEN}]
)
async def test_who_has_not_is_refused(host: Any, headers: dict[str, str]):
    async with asked(host(token=TOKEN)) as http:
        for path in ("/status", "/status/instance"):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["code"] == "authentication_failed"


@hosts
async def test_dependencies_let_in_and_refuse(host: Any):
    def only_ana(user: str = Header("")) -> None:
        if user != "ana":
            raise HTTPException(403)

    async with asked(host(dependencies=[Depends(only_ana)])) as http:
        assert (await http.get("/status")).status_code == 403
        assert (await http.get("/status", headers={"user": "ana"})).status_code == 200


@hosts
async def test_both_are_asked(host: Any):
    def nobody() -> None:
        raise HTTPException(403)

    async with asked(host(token=TOKEN, dependencies=[Depends(nobody)])) as http:
        assert (await http.get("/status")).status_code == 401
        assert (await http.get("/status", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 403


@hosts
@pytest.mark.parametrize("options", [{}, {"token": ""}, {"token": "hunter2"}, {"token": SecretStr("")}])
def test_it_is_never_open_to_all(host: Any, options: dict[str, Any]):
    with pytest.raises(ConfigurationError) as refused:
        host(**options)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("path", ["", "status", "/status/"])
def test_a_path_that_is_none(path: str):
    with pytest.raises(ConfigurationError, match="path="):
        StatusInterceptor(token=TOKEN, path=path)


async def test_without_websockets_it_says_so():
    app = create_http_server(Microservice(interceptors=[StatusInterceptor(token=TOKEN)]))
    async with asked(app) as http:
        assert (await http.get("/status", headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 503
