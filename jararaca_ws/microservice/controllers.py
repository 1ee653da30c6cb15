"""The decorators of a REST controller. They only write down: the class and its methods stay what they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, ClassVar, TypeVar

from fastapi import APIRouter
from fastapi.params import Depends

from jararaca_ws.errors import ConfigurationError

__all__ = [
    "Delete",
    "Get",
    "HttpMethod",
    "Patch",
    "Post",
    "Put",
    "RestController",
    "controller_path",
    "join_paths",
    "rest_controller",
    "rest_methods",
]

_CLASS_ATTRIBUTE = "__jararaca_rest_controller__"
_METHOD_ATTRIBUTE = "__jararaca_rest_methods__"

_C = TypeVar("_C", bound=type)
_F = TypeVar("_F", bound=Callable[..., Any])


def join_paths(prefix: str, path: str) -> str:
    """The path of a controller and that of a method, with one slash between them.

    A slash at the end of ``path`` counts, as in FastAPI: ``"/tasks"`` and ``"/"`` make ``"/tasks/"``, ``"/tasks"`` and
    ``""`` make ``"/tasks"``. One at the end of ``prefix`` does not; slashes at the beginning may be left out.
    """
    prefix = prefix.strip("/")
    joined = f"/{prefix}" if prefix else ""
    if path:
        joined += "/" + path.removeprefix("/")
    return joined or "/"


class RestController:
    """The class decorator of a controller with REST methods.

    Args:
        path: before the path of each of its methods.
        tags: of all its methods, in the OpenAPI document.
        dependencies: FastAPI dependencies of all its methods.
        router_options: what else an ``APIRouter`` takes (``responses=``, ``deprecated=``, ...).

    Raises:
        ConfigurationError: an option that an ``APIRouter`` does not know; used without parentheses.
    """

    def __init__(
        self,
        path: str = "",
        *,
        tags: Sequence[str | Enum] | None = None,
        dependencies: Sequence[Depends] | None = None,
        **router_options: Any,
    ) -> None:
        _check("RestController", path, router_options, _ROUTER_OPTIONS)
        self.path = path
        self.router_options = {
            "tags": list(tags or ()),
            "dependencies": list(dependencies or ()),
            **router_options,
        }

    def __call__(self, cls: _C) -> _C:
        setattr(cls, _CLASS_ATTRIBUTE, self)
        return cls


class HttpMethod:
    """The decorator of a REST method: what `Get`, `Post`, `Put`, `Patch` and `Delete` have in common.

    One method may have several of them.

    Args:
        path: after that of the controller.
        route_options: what a FastAPI route takes (``status_code=``, ``response_model=``, ``summary=``, ...).

    Raises:
        ConfigurationError: an option that a FastAPI route does not know; used without parentheses.
    """

    http_method: ClassVar[str]

    def __init__(self, path: str = "", **route_options: Any) -> None:
        _check(type(self).__name__, path, route_options, _ROUTE_OPTIONS)
        self.path = path
        self.route_options = route_options

    def __call__(self, function: _F) -> _F:
        plain = _plain(function)
        setattr(plain, _METHOD_ATTRIBUTE, (self, *_declarations(plain)))
        return function


class Get(HttpMethod):
    """Answer GET requests with this method."""

    http_method = "GET"


class Post(HttpMethod):
    """Answer POST requests with this method."""

    http_method = "POST"


class Put(HttpMethod):
    """Answer PUT requests with this method."""

    http_method = "PUT"


class Patch(HttpMethod):
    """Answer PATCH requests with this method."""

    http_method = "PATCH"


class Delete(HttpMethod):
    """Answer DELETE requests with this method."""

    http_method = "DELETE"


def rest_controller(cls: type) -> RestController | None:
    """What `@RestController` wrote down on this class or on a base of it."""
    return getattr(cls, _CLASS_ATTRIBUTE, None)


def controller_path(cls: type) -> str:
    """The path of a `@RestController`; ``""`` where there is no such decorator."""
    decorator = rest_controller(cls)
    return "" if decorator is None else decorator.path


def rest_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any], HttpMethod]]:
    """The REST methods of a class (attribute, function, declaration) in the order of its source, then of its bases.

    A method that is overridden counts as its overriding one says: without a decorator it is no REST method.

    Raises:
        ConfigurationError: a decorated function that is not a method of instances.
    """
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, value in vars(base).items():
            declarations = () if name in seen else _declarations(_plain(value))
            seen.add(name)
            if declarations and isinstance(value, (staticmethod, classmethod)):
                raise ConfigurationError(
                    f"{base.__module__}.{base.__qualname__}.{name} is a {type(value).__name__}",
                    f"@{type(declarations[0]).__name__} is for methods that take self",
                )
            for declaration in declarations:
                yield name, value, declaration


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _declarations(value: Any) -> tuple[HttpMethod, ...]:
    # Some objects answer every getattr with something.
    declarations = getattr(value, _METHOD_ATTRIBUTE, ())
    return declarations if isinstance(declarations, tuple) else ()


def _options(function: Callable[..., Any], *ours: str) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self", *ours}


_ROUTER_OPTIONS = _options(
    APIRouter.__init__, "prefix", "route_class", "routes", "lifespan", "on_startup", "on_shutdown"
)
_ROUTE_OPTIONS = _options(APIRouter.add_api_route, "path", "endpoint", "methods", "route_class_override")


def _check(decorator: str, path: object, options: dict[str, Any], known: frozenset[str]) -> None:
    if not isinstance(path, str):
        raise ConfigurationError(f"@{decorator} was given {path!r} for its path", f'write @{decorator}("/path")')
    unknown = sorted(options.keys() - known)
    if unknown:
        raise ConfigurationError(
            f"@{decorator}({path!r}) has no option {unknown[0]!r}", f"it takes {', '.join(sorted(known))}"
        )
