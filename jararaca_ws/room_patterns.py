"""Whether the rooms of two patterns can have one name: a search through what both make, character by character."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import Enum
from itertools import count
from string import ascii_letters, digits
from typing import Any, TypeAlias
from uuid import UUID

__all__ = ["Names", "Way", "literally", "ways_of"]

Way: TypeAlias = Sequence[tuple[frozenset[str], bool]]
"""One way to write a text: which characters each place may have, and whether more of them may follow it."""

_BEYOND_ASCII = "\u0080"
"""Stands for all that is not ASCII: a value may hold it."""

_VALUE = frozenset(ascii_letters + digits + "%" + _BEYOND_ASCII)
_DIGIT = frozenset(digits)
_HEX = frozenset(digits + "abcdef")


def literally(text: str) -> Way:
    """This text, and no other."""
    return [(frozenset(character), False) for character in text]


def ways_of(annotation: Any) -> Sequence[Way]:
    """How the values of a type stand in a name, where they are escaped; more than that where the type says little."""
    if annotation is UUID:
        return [_form("-".join(("h" * 8, "hhhh", "hhhh", "hhhh", "h" * 12)))]
    if annotation is bool:
        return [literally("True"), literally("False")]
    if isinstance(annotation, type) and not issubclass(annotation, Enum | datetime):
        if issubclass(annotation, int):
            return [[(_DIGIT, True)], [*literally("%2D"), (_DIGIT, True)]]
        if issubclass(annotation, date):
            dash = literally("%2D")
            return [[*_form("dddd"), *dash, *_form("dd"), *dash, *_form("dd")]]
    return [[(_VALUE, True)]]


def _form(text: str) -> Way:
    return [({"h": _HEX, "d": _DIGIT}.get(character, frozenset(character)), False) for character in text]


class Names:
    """All the names that parts in a row make, each of them written in any of its ways: an automaton.

    Args:
        parts: no way of theirs is empty.
    """

    def __init__(self, parts: Iterable[Sequence[Way]]) -> None:
        self._steps: defaultdict[int, list[tuple[frozenset[str], int]]] = defaultdict(list)
        self._end = 0
        states = count(1)
        for ways in parts:
            begin, self._end = self._end, next(states)
            for way in ways:
                here = begin
                for number, (characters, repeats) in enumerate(way, start=1):
                    there = self._end if number == len(way) else next(states)
                    self._steps[here].append((characters, there))
                    if repeats:
                        self._steps[there].append((characters, there))
                    here = there

    def meet(self, other: Names) -> bool:
        """Whether one name is among both."""
        seen = {(0, 0)}
        waiting = [(0, 0)]
        while waiting:
            here, there = waiting.pop()
            if (here, there) == (self._end, other._end):
                return True
            for characters, next_here in self._steps[here]:
                for others, next_there in other._steps[there]:
                    if (next_here, next_there) not in seen and _share(characters, others):
                        seen.add((next_here, next_there))
                        waiting.append((next_here, next_there))
        return False


def _share(one: frozenset[str], other: frozenset[str]) -> bool:
    if one & other:
        return True
    return any(
        _BEYOND_ASCII in values and any(character > _BEYOND_ASCII for character in characters)
        for values, characters in ((one, other), (other, one))
    )
