"""What a method of a controller asks for: its parameters without ``self``, with annotations that need no namespace."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from fastapi import params

from jararaca_ws.errors import ConfigurationError

__all__ = ["classes_asked", "parameters_of", "parameters_without_self"]


def parameters_of(
    function: Callable[..., Any], names: Mapping[str, Any] | None = None
) -> tuple[list[inspect.Parameter], Any]:
    """The parameters of a function, and what it returns, annotations resolved.

    ``names`` are those that an annotation may use although the module does not know them.

    Raises:
        ConfigurationError: an annotation is not known at run time.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        hints = get_type_hints(function, localns=dict(names or {}), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"{name} is annotated with {error.name!r}, which its module does not know at run time",
            "import it at the top of the module, not under `if TYPE_CHECKING:` nor inside of a function",
        ) from None
    signature = inspect.signature(function)
    parameters = [one.replace(annotation=hints.get(one.name, one.annotation)) for one in signature.parameters.values()]
    return parameters, hints.get("return", signature.return_annotation)


def parameters_without_self(
    function: Callable[..., Any], names: Mapping[str, Any] | None = None
) -> tuple[list[inspect.Parameter], Any]:
    """The parameters of a method after ``self``; the rest as `parameters_of`.

    Raises:
        ConfigurationError: as `parameters_of`, or there is no ``self``.
    """
    parameters, returned = parameters_of(function, names)
    if not parameters:
        name = f"{function.__module__}.{function.__qualname__}"
        raise ConfigurationError(f"{name} takes no self", "it has to be a method of its controller")
    return parameters[1:], returned


def classes_asked(where: str, parameter: inspect.Parameter, *given: type) -> tuple[Any, ...]:
    """The classes that a parameter is annotated with, several in a union; none where FastAPI is told what to give.

    Args:
        where: names the function in errors.
        parameter: with its annotation resolved.
        given: what is never None.

    Raises:
        ConfigurationError: it may be None.
    """
    annotation = parameter.annotation
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        if any(isinstance(note, params.Depends | params.Param | params.Body) for note in notes):
            return ()
    if get_origin(annotation) not in (Union, UnionType):
        return (annotation,)
    classes = get_args(annotation)
    if NoneType in classes:
        for cls in given:
            if cls in classes:
                raise ConfigurationError(
                    f"{where}: {parameter.name!r} is never None", f"write {parameter.name}: {cls.__qualname__}"
                )
    return classes
