"""What a class asks its constructor for: read once, from the signature and its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from jararaca_ws.errors import UnresolvableDependency

__all__ = ["Parameter", "as_class", "constructor_parameters", "is_protocol"]

_SIGNATURE_CURE = "annotate it in an __init__ of the class, or add a provider of the class to your container"
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter that a constructor may be given by name.

    Attributes:
        annotation: resolved, or ``inspect.Parameter.empty`` where there is none.
    """

    name: str
    annotation: Any
    has_default: bool


def as_class(annotation: Any) -> type | None:
    """The class that an annotation speaks of.

    ``Annotated[T, ...]`` and ``T | None`` speak of ``T``, ``Repository[User]`` of ``Repository``. None: it speaks of
    no class, or of several.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return as_class(get_args(annotation)[0])
    if origin is Union or origin is UnionType:
        members = [member for member in get_args(annotation) if member is not NoneType]
        return as_class(members[0]) if len(members) == 1 else None
    if origin is not None:
        annotation = origin
    if annotation is Any or annotation is inspect.Parameter.empty:
        return None  # classes as well, but they say nothing
    return annotation if isinstance(annotation, type) else None


def is_protocol(cls: type) -> bool:
    """Whether this is a protocol itself, not a class that implements one."""
    # `typing.is_protocol` is new in Python 3.13; the attribute is what it looks at.
    return bool(vars(cls).get("_is_protocol", False))


def constructor_parameters(cls: type) -> list[Parameter]:
    """What ``cls(...)`` takes, in order; parameters that cannot be given by name are left out if they may be.

    Raises:
        UnresolvableDependency: an annotation means nothing at run time, or a parameter cannot be given by name.
    """
    signature, hints = _signature(cls)
    parameters = []
    for name, parameter in signature.parameters.items():
        has_default = parameter.default is not inspect.Parameter.empty
        if parameter.kind in _BY_NAME:
            annotation = hints.get(name, parameter.annotation)
            parameters.append(Parameter(name=name, annotation=annotation, has_default=has_default))
        elif not has_default:
            shown = str(parameter.replace(annotation=inspect.Parameter.empty))
            raise UnresolvableDependency(cls, shown, "cannot be given by name", _SIGNATURE_CURE)
    return parameters


def _signature(cls: type) -> tuple[inspect.Signature, dict[str, Any]]:
    # pydantic publishes the signature of a model (its __init__ has none); the annotations in it are resolved.
    if isinstance(getattr(cls, "__signature__", None), inspect.Signature):
        return inspect.signature(cls), {}
    constructor = _constructor(cls)
    if constructor is None:
        return inspect.Signature(), {}
    try:
        signature = inspect.signature(constructor)
        hints = get_type_hints(constructor, include_extras=True)
    except NameError as error:
        raise _unknown_name(cls, constructor, str(error.name)) from None
    return signature.replace(parameters=list(signature.parameters.values())[1:]), hints


def _constructor(cls: type) -> Callable[..., Any] | None:
    """``__init__``, or else ``__new__``; None where neither takes anything."""
    for base in cls.__mro__:
        init = vars(base).get("__init__", object.__init__)
        # A class that implements a protocol inherits from it an __init__(*args, **kwargs) that means nothing, and
        # has that of object in its place once it has been instantiated.
        if init is not object.__init__ and not is_protocol(base):
            return init  # type: ignore[no-any-return]
    return next((cls.__new__ for base in cls.__mro__[:-1] if "__new__" in vars(base)), None)


def _unknown_name(cls: type, constructor: Callable[..., Any], unknown: str) -> UnresolvableDependency:
    annotations: dict[str, Any] = getattr(constructor, "__annotations__", {})
    parameter = next((name for name, written in annotations.items() if unknown in str(written)), "(all)")
    return UnresolvableDependency(
        cls,
        parameter,
        f"is annotated with {unknown!r}, which its module does not know at run time",
        "import it at the top of the module, not under `if TYPE_CHECKING:` nor inside of a function",
    )
