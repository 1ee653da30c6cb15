"""The names of our keys and Redis channels. A room's name is literal in them, and never more than its own part."""

from __future__ import annotations

from jararaca_ws.errors import ConfigurationError

__all__ = ["DEFAULT_PREFIX", "Channels", "Keys", "escaped"]

DEFAULT_PREFIX = "jararaca:websocket"


def escaped(room: str) -> str:
    """The room as the whole of a hash tag: what could end or begin one is written as in a URL."""
    return room.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


class Keys:
    """In each key the room is the hash tag, so that one node of a cluster has all of a room's.

    Raises:
        ConfigurationError: the prefix has braces, and so would be the hash tag.
    """

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(
                f"with the prefix {prefix!r} the nodes of a cluster could not be told apart by rooms",
                "leave the braces out",
            )
        self.prefix = prefix

    def entries(self, room: str) -> bytes:
        return self._key("entries", room)

    def meta(self, room: str) -> bytes:
        return self._key("meta", room)

    def sent(self, room: str, publication_id: str) -> bytes:
        return self._key("sent", room) + b":" + publication_id.encode()

    def presence(self, room: str) -> bytes:
        return self._key("presence", room)

    def bucket(self, name: str) -> bytes:
        return self._key("bucket", name)

    def value(self, key: str) -> bytes:
        return self._key("value", key)

    @property
    def lives(self) -> bytes:
        """Of the instances that hold something."""
        return f"{self.prefix}:limits:{{{self.prefix}}}:lives".encode()

    def held(self, instance_id: str) -> bytes:
        """What one of them holds. In the slot of `lives`, because one script looks at all of them."""
        return f"{self.prefix}:limits:{{{self.prefix}}}:held:{instance_id}".encode()

    def instance(self, life: str) -> bytes:
        return f"{self.prefix}:instance:{life}".encode()

    def _key(self, kind: str, room: str) -> bytes:
        return f"{self.prefix}:{kind}:{{{escaped(room)}}}".encode()


class Channels:
    """The Redis channel of each room, and the one of broadcasts.

    Raises:
        ConfigurationError: one is empty, or a room could have the name of the broadcast channel.
    """

    def __init__(self, send: str, broadcast: str) -> None:
        if not send or not broadcast or broadcast.startswith(f"{send}:"):
            raise ConfigurationError(
                f"the Redis channels {send!r} and {broadcast!r} clash",
                "neither may be empty, and the broadcast channel may not begin with the send channel and a colon: "
                "a room could have that name",
            )
        self.broadcast = broadcast.encode()
        self._send = f"{send}:".encode()

    def of(self, room: str) -> bytes:
        return self._send + room.encode()

    def is_room(self, channel: bytes) -> bool:
        return channel.startswith(self._send)

    def room(self, channel: bytes) -> str:
        """The room of a channel that has one."""
        return channel.removeprefix(self._send).decode()
