from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, Optional, Protocol, TypeVar

import pytest
from pydantic import BaseModel

from jararaca_ws.errors import UnresolvableDependency
from jararaca_ws.microservice.parameters import as_class, constructor_parameters, is_protocol

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> float: ...


class SystemClock(Clock):
    def now(self) -> float:
        return 0.0


class Repository(Generic[T]): ...


class ByNew:
    def __new__(cls, clock: Clock) -> ByNew:
        return object.__new__(cls)


@dataclass
class Dataclass:
    clock: Clock
    limit: int = 5


class Settings(BaseModel):
    url: str
    limit: int = 5


class Variadic:
    def __init__(self, *clocks: Clock) -> None: ...


class PositionalWithDefault:
    def __init__(self, limit: int = 5, /, clock: Clock | None = None) -> None: ...


class Unimported:
    def __init__(self, limit: int, price: Decimal) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "cls"),
    [
        (Clock, Clock),
        (Annotated[Clock, "mark"], Clock),
        (Clock | None, Clock),
        (Optional[Clock], Clock),  # noqa: UP045
        (Annotated[Clock | None, "mark"], Clock),
        (Repository[int], Repository),
        (Clock | Repository[int], None),
        (Any, None),
        (T, None),
        (inspect.Parameter.empty, None),
    ],
)
def test_the_class_that_an_annotation_speaks_of(annotation: Any, cls: type | None) -> None:
    assert as_class(annotation) is cls


def test_a_protocol_is_told_from_what_implements_it() -> None:
    assert is_protocol(Clock)
    assert not is_protocol(SystemClock)
    assert not is_protocol(Repository)


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (Repository, []),
        (SystemClock, []),
        (ByNew, [("clock", Clock, False)]),
        (Dataclass, [("clock", Clock, False), ("limit", int, True)]),
        (Settings, [("url", str, False), ("limit", int, True)]),
        (PositionalWithDefault, [("clock", Clock | None, True)]),
    ],
)
def test_what_a_constructor_takes(cls: type, parameters: list[tuple[str, Any, bool]]) -> None:
    found = constructor_parameters(cls)
    assert [(one.name, one.annotation, one.has_default) for one in found] == parameters


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Variadic, r"Variadic.__init__ parameter '\*clocks' cannot be given by name: annotate it"),
        (Unimported, r"Unimported.__init__ parameter 'price' is annotated with 'Decimal', .* import it at the top"),
        (datetime, r"datetime.__init__ parameter .* cannot be"),
        (BaseException, r"BaseException.__init__ parameter .* cannot be"),
        (zip, r"zip.__init__ parameter .* cannot be"),
    ],
)
def test_what_cannot_be_given_is_an_error_that_says_how_to_cure_it(cls: type, said: str) -> None:
    with pytest.raises(UnresolvableDependency, match=said):
        constructor_parameters(cls)
