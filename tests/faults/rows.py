"""The fault table's rows that have no test: what cannot be tested here, and what waits for something.

Every other row F1-F48 has at least one test whose name begins with ``test_f<N>_``, anywhere under tests/.
"""

from __future__ import annotations

ROWS = range(1, 49)

UNTESTABLE: dict[int, str] = {}

PENDING: dict[int, str] = {}
