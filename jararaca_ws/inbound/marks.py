"""What decorators write down on the methods of a controller, and how it is read."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from jararaca_ws.errors import ConfigurationError, named

__all__ = ["check_async", "mark", "marked"]

_Mark = TypeVar("_Mark")


def mark(function: Callable[..., Any], mark: str, spec: object) -> None:
    """Write on a function what a decorator says of it, before what those nearer to it have said."""
    setattr(function, mark, (spec, *getattr(function, mark, ())))


def marked(controller: type, mark: str, kind: type[_Mark]) -> list[tuple[Callable[..., Awaitable[Any]], _Mark]]:
    """The methods of a controller that have such a mark, inherited ones included; once for each.

    Raises:
        ConfigurationError: a method has it that takes no ``self``, or has lost it where it was overridden.
    """
    found = []
    for name in dict.fromkeys(name for cls in reversed(controller.__mro__) for name in vars(cls)):
        function = inspect.getattr_static(controller, name)
        specs = _marks(function, mark, kind)
        if specs:
            _check_method(function, f"@{kind.__name__}")
        elif function is not None:
            _check_not_lost(controller, name, mark, kind)
        found += [(function, spec) for spec in specs]
    return found


def _marks(function: Any, mark: str, kind: type[_Mark]) -> list[_Mark]:
    plain = function.__func__ if isinstance(function, staticmethod | classmethod) else function
    specs = getattr(plain, mark, ())
    # Some objects answer every getattr with something.
    return [spec for spec in specs if isinstance(spec, kind)] if isinstance(specs, tuple) else []


def _check_not_lost(controller: type, name: str, mark: str, kind: type[Any]) -> None:
    for cls in controller.__mro__:
        if _marks(vars(cls).get(name), mark, kind):
            raise ConfigurationError(
                f"{named(controller)} overrides {cls.__qualname__}.{name}, which is a @{kind.__name__}, and is none",
                f"decorate it as well, or write {name} = None where nothing is to be served",
            )


def check_async(function: Callable[..., Any], what: str) -> None:
    """Refuse a function that is not ``async def``."""
    _check_method(function, what)
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{named(function)} is {what} but not async", "write async def")


def _check_method(function: Any, what: str) -> None:
    """Refuse a method that takes no ``self``."""
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise ConfigurationError(
            f"{named(function)} is {what} and a {kind}", f"leave @{kind} out, and take self: each message has its own"
        )
