"""The table of docs/errors.md is what the classes say."""

from __future__ import annotations

import re
from pathlib import Path

from jararaca_ws import errors
from jararaca_ws.errors import JararacaError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_table_has_every_error_as_it_is():
    told = {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, JararacaError) and cls.code != "internal_error"
    }
    row = re.compile(r"^\| (`\w+`.*?) \| (\w+) \| `(\w+)` \| (\d+) \| (\d+) \| (\w+) \|$", re.MULTILINE)
    rows = {}
    for names, *columns in row.findall(PAGE.read_text()):
        rows.update(dict.fromkeys(re.findall(r"`(\w+)`", names), columns))
    assert rows == {
        name: [cls.category, cls.code, str(int(cls.close_code)), str(cls.status), "yes" if cls.retry else "no"]
        for name, cls in told.items()
    }
