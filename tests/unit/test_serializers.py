"""B35: nothing in the package turns bytes into objects by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jararaca_ws

SOURCES = sorted(Path(jararaca_ws.__file__).parent.rglob("*.py"))
BUILDER = re.compile(
    r"^\s*(?:import|from)\s+(?:pickle|marshal|shelve|yaml|dill|cloudpickle|jsonpickle)\b"
    r"|(?<![\w.])(?:eval|exec|compile|__import__)\(",
    re.MULTILINE,
)


def test_b35_no_serializer_that_builds_objects_by_name():
    assert len(SOURCES) > 100
    assert [path for path in SOURCES if BUILDER.search(path.read_text())] == []


@pytest.mark.parametrize(
    "line", ["import pickle", "    from yaml import load", "x = eval(text)", "a(__import__(name))"]
)
def test_b35_the_test_finds_them(line: str):
    assert BUILDER.search(f"a = 1\n{line}\n")


def test_b35_modules_are_imported_by_name_only_for_the_command_line():
    importing = [path.name for path in SOURCES if "import_module" in path.read_text()]
    assert importing == ["application.py"]
