"""What one instance asks of all: commands, which travel to a room of our own as messages do.

A command is a byte that no frame begins with, and JSON. An instance that does not know one, because it is of an older
version, drops it and counts it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jararaca_ws.socket_state import check_close

__all__ = ["MARK", "Command", "Disconnect", "Leave", "Moved", "decode_command", "encode_command"]

MARK = b"\x02"


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Disconnect(_Command):
    """To the room of a user: close the connections that are in it."""

    command: Literal["disconnect"] = "disconnect"
    code: int
    reason: str


class Leave(_Command):
    """To the room of a user: the connections that are in it leave these rooms."""

    command: Literal["leave"] = "leave"
    rooms: list[str]


class Moved(_Command):
    """To those who watch the presence of a room: somebody has come or gone, read it again."""

    command: Literal["moved"] = "moved"


Command = Disconnect | Leave | Moved
_adapter: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="command")])


def encode_command(command: Command) -> bytes:
    """What a backend carries."""
    return MARK + command.__pydantic_serializer__.to_json(command)


def decode_command(payload: bytes) -> Command:
    """What `encode_command` made.

    Raises:
        ValueError: it is no command, or one that this version does not know.
    """
    try:
        command = _adapter.validate_json(payload.removeprefix(MARK))
    except ValidationError:  # its text holds the input
        raise ValueError("not a command") from None
    if isinstance(command, Disconnect):
        check_close(command.code, command.reason)
    return command
