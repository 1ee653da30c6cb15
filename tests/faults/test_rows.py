"""Every row of the fault table has a test that carries its name, or says why it has none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from tests.faults.rows import PENDING, ROWS, UNTESTABLE

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"^\s*(?:async )?def (test_f(\d+)_\w+)\(", re.MULTILINE)


def named_tests(directory: Path) -> dict[int, set[str]]:
    """The row's number -> the tests that carry it in their name."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in directory.rglob("test_*.py"):
        for name, number in NAMED.findall(path.read_text()):
            found[int(number)].add(name)
    return found


def problems(tested: Collection[int], *tables: Mapping[int, str]) -> list[str]:
    reasons = [(number, reason) for table in tables for number, reason in table.items()]
    untested = [number for number, _ in reasons]
    return [
        *(f"F{n} has neither a test nor a reason" for n in ROWS if n not in tested and n not in untested),
        *(f"F{n} has both a test and a reason" for n in ROWS if n in tested and n in untested),
        *(f"F{n} has two reasons" for n in sorted(set(untested)) if untested.count(n) > 1),
        *(f"F{n} is no row" for n in sorted({*tested, *untested}) if n not in ROWS),
        *(f"the reason of F{n} is not one line" for n, reason in reasons if not reason or "\n" in reason),
    ]


def test_every_row_has_a_test_or_a_reason():
    assert problems(named_tests(TESTS), UNTESTABLE, PENDING) == []


ALL = dict.fromkeys(ROWS, "why")


@pytest.mark.parametrize(
    ("tested", "tables", "problem"),
    [
        (set(ROWS) - {7}, [{}], "F7 has neither a test nor a reason"),
        (set(ROWS), [{7: "why"}], "F7 has both a test and a reason"),
        (set(ROWS) - {7}, [{7: "why"}, {7: "why"}], "F7 has two reasons"),
        ({*ROWS, 49}, [{}], "F49 is no row"),
        (set(ROWS), [{49: "why"}], "F49 is no row"),
        (set(ROWS) - {7}, [{7: ""}], "the reason of F7 is not one line"),
        (set(), [{**ALL, 7: "a\nb"}], "the reason of F7 is not one line"),
    ],
)
def test_a_register_that_is_wrong_is_found(tested: set[int], tables: list[dict[int, str]], problem: str):
    assert problems(tested, *tables) == [problem]


def test_a_test_is_found_by_its_name(tmp_path: Path):
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "test_x.py").write_text(
        "def test_f3_plain(): ...\nclass TestX:\n    async def test_f12_in_a_class(self): ...\n"
        "def test_f5(): ...\ndef helper_test_f6_x(): ...\n# def test_f7_x():\ndef test_F8_x(): ...\n"
    )
    (tmp_path / "unit" / "not_a_test.py").write_text("def test_f9_x(): ...\n")
    assert named_tests(tmp_path) == {3: {"test_f3_plain"}, 12: {"test_f12_in_a_class"}}
