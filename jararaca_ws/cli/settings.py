"""``jararaca-ws settings``: those that are in force."""

from __future__ import annotations

import argparse
import os
import sys

from jararaca_ws.cli.application import load, managers_of
from jararaca_ws.cli.ending import STOPPED, USAGE, CannotRun
from jararaca_ws.configuring import unknown_variables

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print them; returns the exit code."""
    app = load(arguments.target, arguments.app_dir)
    managers = managers_of(app)
    if not managers:
        raise CannotRun(USAGE, f"{arguments.target} has no WebSocketInterceptor, or makes it only when it is started")
    for manager in managers:
        for what, settings in manager.effective_settings().items():
            print(what)
            for name, value, source in settings:
                print(f"  {name} = {value}  ({source})")
    for problem in unknown_variables(os.environ):
        print(f"jararaca-ws: the environment variable {problem}", file=sys.stderr)
    return STOPPED
