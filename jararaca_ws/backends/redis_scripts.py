"""What is asked of Redis beyond a single command: our Lua scripts, and the keys that they work on."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["APPEND", "HISTORY", "PUBLISH_ONCE", "Call", "Command", "Keys", "Script"]


class Script:
    """A Lua script of ours. The first argument of every one is the ``run_id`` of the server that it runs on."""

    def __init__(self, name: str) -> None:
        self.source = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script on its way: in place of a command in a pipeline."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[Any, ...]


Command = Call | tuple[Any, ...]
"""A call of a script, or the words of a Redis command."""

APPEND = Script("append")
PUBLISH_ONCE = Script("publish_once")
HISTORY = Script("history")


class Keys:
    """The names of our keys. In each the room is the hash tag, so that one node of a cluster has all of a room's."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def entries(self, room: str) -> bytes:
        return self._key("entries", room)

    def meta(self, room: str) -> bytes:
        return self._key("meta", room)

    def sent(self, room: str, publication_id: str) -> bytes:
        return self._key("sent", room) + b":" + publication_id.encode()

    def _key(self, kind: str, room: str) -> bytes:
        return f"{self.prefix}:{kind}:{{{escaped(room)}}}".encode()


def escaped(room: str) -> str:
    """The room as the whole of a hash tag: what could end or begin one is written as in a URL."""
    return room.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
