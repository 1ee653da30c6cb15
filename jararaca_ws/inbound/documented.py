"""What the OpenAPI document says of one endpoint: an operation for each message that clients may send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from inspect import Signature, cleandoc
from itertools import count
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel

from jararaca_ws.inbound.client_rooms import ClientRooms
from jararaca_ws.inbound.dispatching import DispatchOptions, reads_envelopes
from jararaca_ws.inbound.receiving import InboundHandler, carried_by
from jararaca_ws.messages import UNSET_MESSAGE_ID, WebSocketMessageBase
from jararaca_ws.rpc import WebSocketRequest, reply_type
from jararaca_ws.wire.described import Schema, asked, error, received, replied, returned, sent, to_room
from jararaca_ws.wire.room_requests import MAX_REF, Joined, JoinRequest, LeaveRequest, Left, Sent

__all__ = ["Documented", "Mode", "Operation", "Schemas"]

_numbers = count(1)

Operation: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]


class Schemas(Protocol):
    """The JSON Schema of a type, as it comes in or as it goes out."""

    def __call__(self, kind: Any, mode: Mode) -> Schema: ...


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class Documented:
    """An endpoint, as documents see it.

    Attributes:
        handlers: those that there are when the document is asked for.
        dispatched: a dispatcher of the application's own reads the messages.
        sends: what the server may send to whoever is connected.
        key: tells it from others in this process.
    """

    handlers: list[InboundHandler] = field(default_factory=list)
    options: DispatchOptions
    dispatched: bool = False
    sends: Sequence[type[BaseModel]] = ()
    client_rooms: ClientRooms = ClientRooms()  # noqa: RUF009  # frozen
    key: str = field(default_factory=lambda: str(next(_numbers)))

    def received(self, path: str, schemas: Schemas) -> Iterator[tuple[str, Operation]]:
        """The name of each message that clients may send, and its operation."""
        for handler in self.handlers:
            assert handler.message_type is not None
            yield self._received(handler, handler.message_type, path, schemas)
        yield from self._room_requests(path, schemas)

    def sent(self, description: str | None, schemas: Schemas) -> Operation:
        """What the server may send to whoever is connected, as the callbacks of an operation with this description."""
        carried = [cls for room in self.client_rooms.rooms for cls in carried_by(room)]
        return _sending([*self.sends, *carried], description, schemas)

    @property
    def _in_envelopes(self) -> bool:
        classes = [handler.message_type for handler in self.handlers if handler.message_type is not None]
        return not self.dispatched and reads_envelopes(classes, self.options.discriminator)

    def _received(
        self, handler: InboundHandler, cls: type[BaseModel], path: str, schemas: Schemas
    ) -> tuple[str, Operation]:
        name, body = cls.__name__, schemas(cls, "validation")
        if self._in_envelopes and issubclass(cls, WebSocketMessageBase):
            name = cls.MESSAGE_ID
            body = received(name, body)
        frames = ", in binary frames" if self.options.binary else ""
        told = f"What clients send over the WebSocket `{path}`{frames}."
        return name, {
            "summary": handler.function.__name__.replace("_", " ").title(),
            "requestBody": _body(body),
            "responses": {**self._reply(handler, schemas), **_error()},
            **_sending(handler.sends, _text(handler.function.__doc__ or _own_doc(cls), told), schemas),
        }

    def _reply(self, handler: InboundHandler, schemas: Schemas) -> dict[str, Any]:
        kind = Any if handler.returns is Signature.empty else handler.returns
        arms = _arms(kind)
        messages = [returned(arm, schemas(arm, "serialization")) for arm in arms if _is_message(arm)]
        if self._in_envelopes:
            reply = replied(schemas(kind, "serialization"))
            told = "The reply, where there was a `ref`" + ("; without one, the message itself." if messages else ".")
            return {"200": _response(told, _any_of([reply, *messages]))}
        values = [schemas(arm, "serialization") for arm in arms if not _is_message(arm) and arm is not NoneType]
        if not (values or messages):
            return {"204": {"description": "There is no reply."}}
        return {"200": _response("The reply.", _any_of([*values, *messages]))}

    def _room_requests(self, path: str, schemas: Schemas) -> Iterator[tuple[str, Operation]]:
        rooms, sends = self.client_rooms.rooms, self.client_rooms.sends
        patterns = ", ".join(f"`{room.__pattern__.text}`" for room in rooms if room.__pattern__ is not None)

        def operation(summary: str, body: Schema, answer: type[WebSocketMessageBase]) -> Operation:
            answered = replied(schemas(answer, "serialization"), answer.MESSAGE_ID)
            return {
                "summary": summary,
                "description": f"What clients send over the WebSocket `{path}`, of rooms {patterns}.",
                "requestBody": _body(body),
                "responses": {"200": _response("It is done.", answered), **_error()},
            }

        if rooms:
            yield "jararaca.join", operation("Join rooms, or none", schemas(JoinRequest, "validation"), Joined)
            yield "jararaca.leave", operation("Leave rooms", schemas(LeaveRequest, "validation"), Left)
        if sends:
            messages = _any_of([to_room(cls.MESSAGE_ID, schemas(cls, "validation")) for cls in sends])
            body = received("jararaca.send", messages, max_ref=MAX_REF)
            yield "jararaca.send", operation("Send a message to a room", body, Sent)


def _sending(classes: Iterable[type[BaseModel]], description: str | None, schemas: Schemas) -> Operation:
    """The description and the callbacks of an operation on account of which these may be sent."""
    found = {}
    for cls in dict.fromkeys(classes):
        message, answers = schemas(cls, "serialization"), {"204": {"description": "Nothing is answered."}}
        name = cls.__name__
        if issubclass(cls, WebSocketRequest):
            name, message = cls.MESSAGE_ID, asked(cls, message)
            answers = {"200": _response("The client's reply.", replied(schemas(reply_type(cls), "validation")))}
        elif issubclass(cls, WebSocketMessageBase):
            name, message = cls.MESSAGE_ID, sent(cls, message)
        operation = {"summary": name, "description": _text(_own_doc(cls), "What the server sends.")}
        found[name] = {"{$url}": {"post": {**operation, "requestBody": _body(message), "responses": answers}}}
    if not found:
        return {"description": description}
    told = f"The server may send {', '.join(f'`{name}`' for name in found)}: see the callbacks."
    return {"description": _text(description, told), "callbacks": found}


def _is_message(arm: Any) -> bool:
    return isinstance(arm, type) and issubclass(arm, WebSocketMessageBase) and arm.MESSAGE_ID != UNSET_MESSAGE_ID


def _arms(kind: Any) -> Sequence[Any]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _any_of(schemas: Sequence[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _body(schema: Schema) -> dict[str, Any]:
    return {"required": True, **_json(schema)}


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, **_json(schema)}


def _error() -> dict[str, Any]:
    told = "It was refused, or not handled: told where there was a `ref`, and to clients of `jararaca.v1`."
    return {"default": _response(told, error())}


def _own_doc(cls: type) -> str | None:
    return cls.__dict__.get("__doc__")


def _text(own: str | None, told: str) -> str:
    if not own:
        return told
    own, _, _ = cleandoc(own).partition("\f")  # what follows is for readers of the code, as FastAPI has it
    return f"{own.strip()}\n\n{told}"
