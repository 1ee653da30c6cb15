"""B35: nothing in the package turns bytes into objects by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import jararaca_ws

SOURCES = sorted(Path(jararaca_ws.__file__).parent.rglob("*.py"))
BUILDERS = {"pickle", "marshal", "shelve", "yaml", "dill", "cloudpickle", "jsonpickle"}
EVALUATORS = {"eval", "exec", "compile", "__import__"}


def _used(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_b35_no_serializer_that_builds_objects_by_name():
    assert len(SOURCES) > 100
    for path in SOURCES:
        assert (BUILDERS | EVALUATORS) & set(_used(path.read_text())) == set(), path


def test_b35_the_test_finds_them():
    assert BUILDERS & set(_used("from pickle import loads")) == {"pickle"}
    assert EVALUATORS & set(_used("def f(x):\n    return eval(x)")) == {"eval"}


def test_b35_modules_are_imported_by_name_only_for_the_command_line():
    importing = [path.name for path in SOURCES if "import_module" in path.read_text()]
    assert importing == ["cli.py"]
