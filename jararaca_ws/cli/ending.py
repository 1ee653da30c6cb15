"""How the process ends: the exit codes, and what is said in one line before."""

from __future__ import annotations

__all__ = ["CRASHED", "EXIT_CODES", "REFUSED", "STOPPED", "UNAVAILABLE", "USAGE", "CannotRun"]

STOPPED, CRASHED, USAGE, REFUSED, UNAVAILABLE = range(5)

EXIT_CODES = """\
exit codes:
  0  stopped as asked, by SIGTERM or SIGINT (Ctrl-C)
  1  crashed while running
  2  wrong arguments, or nothing to run there: no such module, no such attribute, not an application
  3  the application's configuration was refused
  4  something that it needs at start-up cannot be had: Redis, the broker, or the port to listen on
"""


class CannotRun(Exception):
    """What is said in one line, without a traceback, before the process ends with ``code``."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code
