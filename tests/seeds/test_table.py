"""The table of README.md says of every feature where it is shown, that it is not there yet, or why it is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.named_tests import NAMED, missing_tests

HERE = Path(__file__).parent
VERDICT = re.compile(r"`tests/[^`]+::\w+`(, `tests/[^`]+::\w+`)*|(not there yet|refused): .+")


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bodies = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if not {line[:2], after[:2]} & {"|-"}]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in bodies]


def problems(text: str) -> list[str]:
    found = rows(text)
    return [
        *(f"{test} does not exist" for test in missing_tests(text)),
        *(f"three cells, please: {cells}" for cells in found if len(cells) != 3),
        *(f"neither tests nor a reason: {cells[-1]}" for cells in found if not VERDICT.fullmatch(cells[-1])),
    ]


def test_every_row_names_tests_that_exist_or_a_reason():
    text = (HERE / "README.md").read_text()
    assert len(rows(text)) > 100
    assert problems(text) == []


def test_every_example_is_in_the_table():
    named = {name for path, name in NAMED.findall((HERE / "README.md").read_text()) if path.startswith("tests/seeds/")}
    examples = [path for path in HERE.glob("test_*.py") if path != Path(__file__)]
    written = {name for path in examples for name in re.findall(r"^async def (test_\w+)\(", path.read_text(), re.M)}
    assert named == written


HEAD = "| feature | here | shown by |\n|---|---|---|\n"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| a | b | `tests/seeds/test_table.py::test_none` |", "tests/seeds/test_table.py::test_none does not exist"),
        ("| a | b | `tests/none.py::test_none` |", "tests/none.py::test_none does not exist"),
        ("| a | b | it works |", "neither tests nor a reason: it works"),
        ("| a | b | refused: |", "neither tests nor a reason: refused:"),
        ("| a | refused: it is bad |", "three cells, please: ['a', 'refused: it is bad']"),
    ],
)
def test_a_table_that_is_wrong_is_found(row: str, problem: str):
    assert problems(HEAD + row) == [problem]
