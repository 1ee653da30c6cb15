"""What a method of a controller asks for: its parameters without ``self``, with annotations that need no namespace."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from jararaca_ws.errors import ConfigurationError

__all__ = ["parameters_without_self"]


def parameters_without_self(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], Any]:
    """The parameters of a method after ``self``, and what it returns, annotations resolved.

    Raises:
        ConfigurationError: an annotation is not known at run time, or there is no ``self``.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{name} is annotated with {error.name!r}, which its module does not know at run time",
            "import it at the top of the module, not under `if TYPE_CHECKING:` nor inside of a function",
        ) from None
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters:
        raise ConfigurationError(f"{name} takes no self", "it has to be a method of its controller")
    resolved = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in parameters[1:]]
    return resolved, hints.get("return", signature.return_annotation)
