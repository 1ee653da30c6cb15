from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dependency_injector import containers, providers

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.microservice import Microservice


class Tasks: ...


class Tracing:
    @asynccontextmanager
    async def intercept(self, app_context: Any) -> AsyncIterator[None]:
        yield


class Undecorated:
    async def intercept(self, app_context: Any) -> AsyncIterator[None]:
        yield


class Coroutine:
    async def intercept(self, app_context: Any) -> None: ...


class Own(containers.DeclarativeContainer):
    tracing = providers.Factory(Tracing)


def test_is_a_frozen_description() -> None:
    one = Tracing()
    microservice = Microservice(
        controllers=[Tasks], interceptors=[one, Tracing, Own.tracing], container=Own(), name="tasks"
    )
    assert microservice.controllers == (Tasks,)
    assert microservice.interceptors == (one, Tracing, Own.tracing)
    with pytest.raises(AttributeError):
        microservice.name = "other"  # type: ignore[misc]


def test_everything_has_a_default() -> None:
    microservice = Microservice()
    assert (microservice.controllers, microservice.interceptors, microservice.container) == ((), (), None)
    assert microservice.name == "microservice"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"controllers": [Tasks()]}, r"Tasks object .* is not a class: pass the class, Tasks"),
        ({"controllers": ["tasks"]}, "'tasks' is not a class"),
        ({"controllers": Tasks}, r"controllers=<class .*Tasks'> is not a list"),
        ({"controllers": "tasks"}, "controllers='tasks' is not a list"),
        ({"controllers": [Tasks, Tracing, Tasks]}, r"Tasks'> is there twice"),
        ({"interceptors": [Tasks]}, r"Tasks'> has no method intercept"),
        ({"interceptors": [object()]}, r"<object object .*> has no method intercept"),
        ({"interceptors": [Undecorated()]}, "decorate it with contextlib.asynccontextmanager"),
        ({"interceptors": [Coroutine]}, "decorate it with contextlib.asynccontextmanager"),
        ({"interceptors": Tracing()}, r"Tracing object .* is not a list"),
        ({"container": object()}, "container=<object object .*> is not a dependency-injector container"),
        ({"container": Own}, r"pass an instance: container=MyContainer\(\)"),
        ({"name": ""}, "name='' is empty"),
    ],
)
def test_what_is_obviously_wrong_is_refused_at_once(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Microservice(**fields)


def test_nothing_is_taken_by_position() -> None:
    with pytest.raises(ConfigurationError, match=r"was given \[<class .*Tasks'>\]: write controllers="):
        Microservice([Tasks])  # type: ignore[call-arg]
