"""What is asked of Redis beyond a single command: our Lua scripts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, Protocol

__all__ = [
    "ALIVE",
    "APPEND",
    "CLAIM",
    "HISTORY",
    "KEEP",
    "PUBLISH_ONCE",
    "TAKE",
    "TAKE_VALUE",
    "Call",
    "Command",
    "Executor",
    "Script",
]


class Script:
    """A Lua script of ours. The first argument of every one is the ``run_id`` of the server that it runs on."""

    def __init__(self, name: str) -> None:
        self.source = files("jararaca_ws.backends").joinpath("lua", f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script on its way: in place of a command in a pipeline."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[Any, ...]


Command = Call | tuple[Any, ...]
"""A call of a script, or the words of a Redis command."""


class Executor(Protocol):
    """Has commands done."""

    async def execute(self, commands: Sequence[Command], size: int = 0) -> list[Any]: ...


APPEND = Script("append")
PUBLISH_ONCE = Script("publish_once")
HISTORY = Script("history")
ALIVE = Script("alive")
TAKE = Script("take")
KEEP = Script("keep")
CLAIM = Script("claim")
TAKE_VALUE = Script("take_value")
