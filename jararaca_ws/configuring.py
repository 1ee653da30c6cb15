"""What all settings have in common: from arguments or the environment, checked at start-up, shown without secrets."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from math import isfinite
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import BeforeValidator, Field, SecretBytes, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jararaca_ws.errors import ConfigurationError, quoted

__all__ = [
    "Amount",
    "Count",
    "Duration",
    "EffectiveSetting",
    "HasSettings",
    "Settings",
    "unknown_variables",
    "warn_of_unknown_variables",
    "written",
]

_log = logging.getLogger("jararaca_ws")

_PREFIX = "JARARACA_WS_"

_Self = TypeVar("_Self", bound="Settings")


def _whole(value: Any) -> Any:
    """Of the environment comes a text; of an argument a number, and not what could be taken for one."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("it is not a whole number")
    return value


def _duration(value: Any) -> Any:
    """Of the environment come seconds."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("it is not a timedelta")
    try:
        seconds = float(value)
        if isfinite(seconds):
            return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        pass
    raise ValueError("it is not a number of seconds")


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
"""A whole number, at least 1."""

Amount = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
"""A whole number, at least 0."""

Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
"""A time that is not negative: a timedelta as an argument, seconds in the environment."""


class EffectiveSetting(NamedTuple):
    """One setting as it is in force.

    Attributes:
        value: as one would write it in the environment; secrets are masked.
        source: ``default``, ``argument``, or the name of the environment variable.
    """

    name: str
    value: str
    source: str


@runtime_checkable
class HasSettings(Protocol):
    """What can say how it is set."""

    def effective(self) -> list[EffectiveSetting]: ...


class Settings(BaseSettings):
    """What the settings of this package have in common.

    An argument counts more than the environment variable, which is the prefix and the name in capitals; that counts
    more than the default. ``none`` in the environment is None.

    Raises:
        ConfigurationError: a value that cannot be, or a name that is none; names the setting and its variable.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_default=False,
        env_prefix=_PREFIX,
        env_parse_none_str="none",
        # Not JSON: a field that is more than a word says itself how it is written.
        enable_decoding=False,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls: type[_Self], data: Any, handler: Callable[[Any], _Self]) -> _Self:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        raise cls._refusal(str(first["loc"][0]) if first["loc"] else "", first["type"], first["msg"], data)

    @classmethod
    def _refusal(cls, name: str, kind: str, problem: str, data: Any) -> ConfigurationError:
        if kind == "extra_forbidden":
            near = get_close_matches(name, cls.model_fields, 1)
            return ConfigurationError(
                f"{cls.__name__} has no {quoted(name)}", f"did you mean {near[0]}?" if near else "see docs/settings.md"
            )
        if name not in cls.model_fields:
            return ConfigurationError(f"{cls.__name__}: {problem.removeprefix('Value error, ')}")
        # Secrets are not shown; nothing else in here is one.
        value = "" if cls._is_secret(name) else f"={_shown(data.get(name))}"
        return ConfigurationError(
            f"{name}{value} cannot be (as an argument, or in {cls.variable(name)})",
            problem.removeprefix("Value error, ").replace("Input should", "it should"),
        )

    @classmethod
    def _is_secret(cls, name: str) -> bool:
        return re.search(r"Secret(Str|Bytes)\b", str(cls.model_fields[name].annotation)) is not None

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a setting."""
        return f"{cls.model_config.get('env_prefix', '')}{name.upper()}"

    def effective(self) -> list[EffectiveSetting]:
        """All settings, as they are in force; without secrets."""
        given = {name.upper() for name in os.environ}
        return [
            EffectiveSetting(name, written(getattr(self, name)), self._source(name, given))
            for name in type(self).model_fields
        ]

    def _source(self, name: str, given: set[str]) -> str:
        if name not in self.model_fields_set:
            return "default"
        # An argument that says the same as the environment cannot be told from it, and need not be.
        variable = self.variable(name)
        if variable in given and getattr(type(self)(), name) == getattr(self, name):
            return variable
        return "argument"


def written(value: Any) -> str:
    """A value as one would write it in the environment; a secret masked."""
    if value is None:
        return "none"
    if isinstance(value, SecretStr | SecretBytes):
        return "***"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    if isinstance(value, tuple | list | frozenset):
        return ",".join(written(one) for one in value)
    return str(value)


def _shown(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else quoted(repr(value)).strip("'\"")


def unknown_variables(names: Iterable[str]) -> list[str]:
    """What is wrong with those environment variables that look like settings and are none: a sentence each.

    Those that Kubernetes makes for a service of the name ``jararaca-ws`` are left alone.
    """
    known = {cls.variable(name) for cls in Settings.__subclasses__() for name in cls.model_fields}
    problems = []
    for name in sorted(names):
        if not name.startswith(_PREFIX) or name in known or re.search(r"_(SERVICE|PORT)(_|$)", name):
            continue
        near = get_close_matches(name, known, 1)
        problems.append(f"{quoted(name)} is not a setting{f': did you mean {near[0]}?' if near else ''}")
    return problems


@cache  # once in a process
def warn_of_unknown_variables() -> None:
    """Log what `unknown_variables` finds. Not refused: an older version may be started where a newer one was set."""
    for problem in unknown_variables(os.environ):
        _log.warning("the environment variable %s", problem)
