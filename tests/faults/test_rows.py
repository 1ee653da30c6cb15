"""Every row of the two tables has a test that carries its name, or says why it has none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from tests.faults.rows import ROWS, UNTESTED

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"^\s*(?:async )?def (test_((?:[fb]\d+_)+)\w+)\(", re.MULTILINE)


def named_tests(directory: Path) -> dict[str, set[str]]:
    """The row -> the tests that carry it in their name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in directory.rglob("test_*.py"):
        for name, rows in NAMED.findall(path.read_text()):
            for row in rows.upper().split("_")[:-1]:
                found[row].add(name)
    return found


def problems(tested: Collection[str], untested: Mapping[str, str]) -> list[str]:
    return [
        *(f"{row} has neither a test nor a reason" for row in ROWS if row not in tested and row not in untested),
        *(f"{row} has both a test and a reason" for row in ROWS if row in tested and row in untested),
        *(f"{row} is no row" for row in sorted({*tested, *untested}) if row not in ROWS),
        *(f"the reason of {row} is not one line" for row, reason in untested.items() if not reason or "\n" in reason),
    ]


def test_every_row_has_a_test_or_a_reason():
    assert problems(named_tests(TESTS), UNTESTED) == []


ALL = dict.fromkeys(ROWS, "why")


@pytest.mark.parametrize(
    ("tested", "untested", "problem"),
    [
        (set(ROWS) - {"F7"}, {}, "F7 has neither a test nor a reason"),
        (set(ROWS) - {"B7"}, {}, "B7 has neither a test nor a reason"),
        (set(ROWS), {"F7": "why"}, "F7 has both a test and a reason"),
        ({*ROWS, "F49"}, {}, "F49 is no row"),
        ({*ROWS, "B41"}, {}, "B41 is no row"),
        (set(ROWS), {"F49": "why"}, "F49 is no row"),
        (set(ROWS) - {"F7"}, {"F7": ""}, "the reason of F7 is not one line"),
        (set(), {**ALL, "F7": "a\nb"}, "the reason of F7 is not one line"),
    ],
)
def test_a_register_that_is_wrong_is_found(tested: set[str], untested: dict[str, str], problem: str):
    assert problems(tested, untested) == [problem]


def test_a_test_is_found_by_its_name(tmp_path: Path):
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "test_x.py").write_text(
        "def test_f3_plain(): ...\nclass TestX:\n    async def test_b12_in_a_class(self): ...\n"
        "def test_b3_f4_several(): ...\n"
        "def test_f5(): ...\ndef helper_test_f6_x(): ...\n# def test_f7_x():\ndef test_F8_x(): ...\n"
    )
    (tmp_path / "unit" / "not_a_test.py").write_text("def test_f9_x(): ...\n")
    assert named_tests(tmp_path) == {
        "F3": {"test_f3_plain"},
        "B12": {"test_b12_in_a_class"},
        "B3": {"test_b3_f4_several"},
        "F4": {"test_b3_f4_several"},
    }
