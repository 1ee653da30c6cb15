"""What a microservice consists of. A description: nothing runs when it is written down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.interceptors.base import AppInterceptor
from jararaca_ws.microservice.container import is_container, is_provider

if TYPE_CHECKING:
    from dependency_injector import containers, providers
    from starlette.types import Receive, Scope, Send

__all__ = ["DEFAULT_NAME", "Microservice"]

DEFAULT_NAME = "microservice"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Microservice:
    """The controllers of an application, and the interceptors around their units of work.

    Attributes:
        controllers: classes; each is built by type, once per unit of work.
        interceptors: the first is the outermost. Each is an object with ``intercept(app_context)``, a class that is
            built by type when the application starts, or a dependency-injector provider.
        container: the user's own dependency-injector container (an instance), asked first for every type.
        name: the title of the OpenAPI document; the queues of RabbitMQ begin with it, so there it has to be given.

    Raises:
        ConfigurationError: something in it can be no controller, interceptor or container; it is named.
    """

    controllers: Sequence[type] = ()
    interceptors: Sequence[AppInterceptor | type[AppInterceptor] | providers.Provider[Any]] = ()
    container: containers.Container | None = None
    name: str = DEFAULT_NAME

    def __new__(cls, *misplaced: object, **_fields: object) -> Microservice:
        if misplaced:
            raise ConfigurationError(
                f"Microservice takes nothing by position, but was given {misplaced[0]!r}",
                "write controllers=[...], interceptors=[...] and so on",
            )
        return object.__new__(cls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to start under an ASGI server, to which a `Microservice` looks like an application."""
        mistaken = ConfigurationError(
            "a Microservice is no ASGI application",
            "serve it with `jararaca-ws serve`, or give the server what create_http_server makes of it",
        )
        if scope["type"] != "lifespan":
            raise mistaken
        await send({"type": "lifespan.startup.failed", "message": str(mistaken)})

    def __post_init__(self) -> None:
        object.__setattr__(self, "controllers", _each("controllers", self.controllers, _check_controller))
        twice = next((cls for cls in self.controllers if self.controllers.count(cls) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"the controller {twice!r} is there twice", "leave one of them out")
        object.__setattr__(self, "interceptors", _each("interceptors", self.interceptors, _check_interceptor))
        if self.container is not None and not is_container(self.container):
            cure = "pass an instance: container=MyContainer()" if isinstance(self.container, type) else ""
            raise ConfigurationError(f"container={self.container!r} is not a dependency-injector container", cure)
        if not self.name:
            raise ConfigurationError(f"name={self.name!r} is empty", "give it a name")


def _each(field: str, values: Iterable[Any], check: Callable[[Any], None]) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{field}={values!r} is not a list", f"write {field}=[...]")
    values = tuple(values)
    for value in values:
        check(value)
    return values


def _check_controller(value: Any) -> None:
    if not isinstance(value, type):
        cure = f"pass the class, {type(value).__name__}" if type(value).__module__ != "builtins" else ""
        raise ConfigurationError(f"the controller {value!r} is not a class", cure)


def _check_interceptor(value: Any) -> None:
    if is_provider(value):
        return  # what it provides is known only once it is called
    intercept = getattr(value, "intercept", None)
    if not callable(intercept):
        raise ConfigurationError(f"the interceptor {value!r} has no method intercept(app_context)")
    if inspect.iscoroutinefunction(intercept) or inspect.isasyncgenfunction(intercept):
        raise ConfigurationError(
            f"intercept of the interceptor {value!r} does not return an asynchronous context manager",
            "decorate it with contextlib.asynccontextmanager",
        )
