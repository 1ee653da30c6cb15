"""Pages that name tests: whether those exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def missing_tests(text: str) -> list[str]:
    """What the text names as ``tests/path.py::name`` and no file has."""
    return [f"{path}::{name}" for path, name in NAMED.findall(text) if not _exists(ROOT / path, name)]


def _exists(path: Path, name: str) -> bool:
    return path.is_file() and re.search(rf"^\s*(async )?def {name}\(", path.read_text(), re.MULTILINE) is not None
