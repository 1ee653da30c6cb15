"""The rows of the two tables, faults (F) and bad inputs (B), that have no test, each with the reason in one line.

Every other row has a test whose name begins with it, anywhere under tests/: ``test_f7_...``, ``test_b16_b17_...``.
"""

from __future__ import annotations

ROWS = [*(f"F{n}" for n in range(1, 49)), *(f"B{n}" for n in range(1, 41))]

UNTESTED: dict[str, str] = {}
