"""The tables of docs/settings.md are what the classes say.

``python -m tests.docs.test_settings_table`` writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jararaca_ws import PresenceSettings, WebSocketSettings
from jararaca_ws.configuring import Settings, written

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
CLASSES: list[type[Settings]] = [WebSocketSettings, PresenceSettings]


def table(cls: type[Settings]) -> str:
    rows = ["| setting | variable | default | |", "|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        words = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | `{cls.variable(name)}` | {written(field.default)} | {words} |")
    return "\n".join(rows) + "\n"


def with_tables(page: str) -> str:
    for cls in CLASSES:
        before, marker, after = page.partition(f"<!-- settings: {cls.__name__} -->\n")
        assert marker
        page = before + marker + table(cls) + re.sub(r"\A(\|.*\n)*", "", after)
    return page


def test_the_tables_are_what_the_classes_say():
    assert PAGE.read_text() == with_tables(PAGE.read_text())


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_says_what_it_is(cls: type[Settings]):
    assert [name for name, field in cls.model_fields.items() if not field.description] == []


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
