"""What one instance asks of all: commands, which travel to a room of our own as messages do.

A command is a byte that no frame begins with, and JSON. An instance that does not know one, because it is of an older
version, drops it and counts it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from jararaca_ws.wire.close_codes import check_close

__all__ = [
    "MARK",
    "Answer",
    "Ask",
    "Command",
    "Deliver",
    "Disconnect",
    "Leave",
    "Moved",
    "Reauthorize",
    "Report",
    "Revoke",
    "decode_command",
    "encode_command",
]

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


class Revoke(_Command):
    """To all instances: what was issued to this user, or this token, counts no more.

    Attributes:
        at: seconds since 1970; newer tokens of the user are not meant.
    """

    command: Literal["revoke"] = "revoke"
    user_id: str | None
    token_id: str | None
    at: float


class Reauthorize(_Command):
    """To the room of a user: the rooms of the connections that are in it are asked again whether they may stay."""

    command: Literal["reauthorize"] = "reauthorize"


class Moved(_Command):
    """To those who watch the presence of a room: somebody has come or gone, read it again."""

    command: Literal["moved"] = "moved"


class Ask(_Command):
    """To the room of a user: ask the connections that are in it, and say what they answer.

    Attributes:
        call: names the call; the ``ref`` of the frame.
        instance: which one asks.
        frame: the text to write.
        timeout_ms: how long an answer is of use.
    """

    command: Literal["ask"] = "ask"
    call: str
    instance: str
    frame: str
    timeout_ms: int = Field(ge=0)


class Answer(_Command):
    """To an instance: what a client has answered to its call, or what another instance has to its question."""

    command: Literal["answer"] = "answer"
    call: str
    text: str


class Deliver(_Command):
    """To an instance: a payload for one of its connections."""

    command: Literal["deliver"] = "deliver"
    connection: str
    payload: str


class Report(_Command):
    """To all instances: answer with your statistics.

    Attributes:
        call: names the question.
        instance: which one asks.
    """

    command: Literal["report"] = "report"
    call: str
    instance: str


Command = Disconnect | Leave | Reauthorize | Revoke | Moved | Ask | Answer | Deliver | Report
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
