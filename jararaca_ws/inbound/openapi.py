"""WebSockets in the OpenAPI document: FastAPI documents their handshakes, and their messages are put beside these.

OpenAPI knows no WebSockets. A handshake is the GET that it is, and a message that clients send a POST, on paths that
no request can have: ``/chat (WebSocket)`` and ``/chat: chat.said``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import cleandoc
from typing import Any
from weakref import WeakValueDictionary

from fastapi import params
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.models import OpenAPI
from fastapi.routing import APIRoute
from pydantic import PydanticUserError, TypeAdapter
from starlette.routing import Match
from starlette.types import Scope

from jararaca_ws.inbound.documented import Documented, Mode, Operation, Schemas
from jararaca_ws.inbound.receiving import InboundHandler
from jararaca_ws.wire.described import Schema

__all__ = ["HANDSHAKE_SUFFIX", "HandshakeRoute", "expand_document", "handshake_options"]

_MARK = "x-jararaca-ws"
HANDSHAKE_SUFFIX = " (WebSocket)"
"""What the path of a `HandshakeRoute` has after that of the WebSocket."""

_REF = "#/components/schemas/"

_documented: WeakValueDictionary[str, Documented] = WeakValueDictionary()


class HandshakeRoute(APIRoute):
    """Serves nothing: FastAPI carries it through inclusions, and documents it with its prefixes, tags and parameters.

    It marks its operation, and `expand_document` finds it by that mark.
    """

    def describes(self, documented: Documented) -> bool:
        """Whether it stands for this."""
        return self.openapi_extra == {_MARK: documented.key}

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.NONE, {}


def handshake_options(
    documented: Documented,
    *,
    name: str,
    description: str | None,
    asking: Iterable[InboundHandler],
    dependencies: Sequence[params.Depends] = (),
) -> dict[str, Any]:
    """The options of a `HandshakeRoute`, beside its path and its endpoint.

    Args:
        documented: held weakly, so somebody else has to hold it for as long as the WebSocket is served.
        name: of the endpoint.
        description: in Markdown; None where there is none.
        asking: those who ask for parameters of the handshake later, when it is over.
        dependencies: FastAPI dependencies of the handshake.
    """
    _documented[documented.key] = documented
    later = [params.Depends(one.dependencies.asks) for one in asking if one.dependencies is not None]
    return {
        "name": f"connect_{name}",
        "summary": name.replace("_", " ").title(),
        "description": cleandoc(description or ""),
        "methods": ["GET"],
        "dependencies": [*dependencies, *later],
        "response_model": None,
        "status_code": 101,
        "response_description": "The WebSocket is open.",
        # Also what keeps FastAPI from saying 422, which a handshake is never answered with.
        "responses": {"4XX": {"description": "The handshake is refused."}},
        # Not the application's own: it may want tags, say, and WebSockets did well without.
        "generate_unique_id_function": _operation_id,
        "openapi_extra": {_MARK: documented.key},
    }


def _operation_id(route: APIRoute) -> str:
    return _identifier(f"{route.name}{route.path_format.removesuffix(HANDSHAKE_SUFFIX)}")


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)


def expand_document(document: dict[str, Any], *, include: bool) -> None:
    """Put the messages of each documented WebSocket into a document that FastAPI has made, in place.

    What was put there before stays as it is. Where ``include`` is False all WebSockets are taken out.
    """
    paths = document.get("paths", {})
    marked = {path: item["get"] for path, item in paths.items() if _MARK in item.get("get", ())}
    sockets = []
    for path, handshake in marked.items():
        documented = _documented.get(handshake.pop(_MARK))
        if not include:
            del paths[path]
        elif documented is not None:
            sockets.append(_Socket(path, handshake, documented))
    if sockets:
        _merge(document, sockets, _fragment(sockets))


class _Socket:
    """A WebSocket in a document: where it stands there, and what is to be said of it."""

    def __init__(self, path: str, handshake: Operation, documented: Documented) -> None:
        self.path = path
        self.handshake = handshake
        self._place = path.removesuffix(HANDSHAKE_SUFFIX)
        self._documented = documented
        asked = handshake.setdefault("parameters", [])
        named = {one["name"] for one in asked if one["in"] == "path"}
        # A document has to name all parameters of a path, and nothing may ask for this one.
        asked += [_text_in_path(name) for name in re.findall(r"{(\w+)}", path) if name not in named]

    @property
    def path_parameters(self) -> list[dict[str, Any]]:
        return [one for one in self.handshake["parameters"] if one["in"] == "path"]

    def paths(self, schemas: Schemas) -> dict[str, Any]:
        """What is to be added, by path; without parameters, whose schemas are in the document already."""
        shared: Operation = {key: self.handshake[key] for key in ("tags", "deprecated") if key in self.handshake}
        paths: dict[str, Any] = {self.path: {"get": self._documented.sent(self.handshake.get("description"), schemas)}}
        for name, operation in self._documented.received(self._place, schemas):
            # A name may hold any printable character, and braces have a meaning in a path.
            label = f"{self._place}: {name.replace('{', '%7B').replace('}', '%7D')}"
            paths[label] = {"post": {**shared, **operation}}
        return paths


def _text_in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _fragment(sockets: Sequence[_Socket]) -> dict[str, Any]:
    """A document of what is to be added, as FastAPI would have it."""
    kinds: dict[tuple[int, Mode], Any] = {}

    def note(kind: Any, mode: Mode) -> Schema:
        kinds[id(kind), mode] = kind
        return {}

    for socket in sockets:
        socket.paths(note)
    schemas, definitions = _generated(kinds)
    paths: dict[str, Any] = {}
    for socket in sockets:
        paths |= socket.paths(lambda kind, mode: schemas[id(kind), mode])
    info = {"title": "", "version": ""}
    raw = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": definitions}}
    fragment: dict[str, Any] = jsonable_encoder(OpenAPI.model_validate(raw), by_alias=True, exclude_none=True)
    return fragment


def _generated(kinds: Mapping[tuple[int, Mode], Any]) -> tuple[dict[tuple[int, Mode], Schema], dict[str, Schema]]:
    """The schema of each, and the definitions that they refer to. What pydantic cannot describe may be anything."""
    schemas: dict[tuple[int, Mode], Schema] = {}
    adapters: list[tuple[int, Mode, TypeAdapter[Any]]] = []
    for (key, mode), kind in kinds.items():
        try:
            adapter = TypeAdapter(kind)
            adapter.json_schema(mode=mode)
        except (PydanticUserError, NameError):  # a return annotation, say, that is no type for pydantic
            schemas[key, mode] = {}
        else:
            adapters.append((key, mode, adapter))
    made, rest = TypeAdapter.json_schemas(adapters, ref_template=_REF + "{model}")
    return {**schemas, **made}, rest.get("$defs", {})


def _merge(document: dict[str, Any], sockets: Sequence[_Socket], fragment: dict[str, Any]) -> None:
    ours = fragment["components"].get("schemas", {})
    theirs = document.get("components", {}).get("schemas", {})
    names = _names_beside(ours, theirs)
    if ours:
        schemas = theirs | {names[name]: _renamed(schema, names) for name, schema in ours.items()}
        document.setdefault("components", {})["schemas"] = dict(sorted(schemas.items()))
    paths = document["paths"]
    taken = {one["operationId"] for item in paths.values() for one in item.values() if "operationId" in one}
    for socket in sockets:
        for label in socket.paths(lambda kind, mode: {}):
            item = _renamed(fragment["paths"][label], names)
            if label == socket.path:
                socket.handshake.update(item["get"])
            else:
                item["post"]["operationId"] = _free(_identifier(label.strip("/")), taken)
                paths[label] = {"parameters": socket.path_parameters, **item}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _names_beside(ours: Mapping[str, Schema], theirs: Mapping[str, Schema]) -> dict[str, str]:
    """The names of our schemas in a document that has others: another one where the same name means something else."""
    names = {name: name for name in ours}
    while clashing := [
        name for name in ours if names[name] in theirs and theirs[names[name]] != _renamed(ours[name], names)
    ]:
        # One after the other: what refers to one that was renamed differs from then on.
        names[clashing[0]] += "-WebSocket"
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if isinstance(value, str) and value.startswith(_REF):  # of a $ref, or of the mapping of a discriminator
        name = value.removeprefix(_REF)
        return _REF + names.get(name, name)
    return value
