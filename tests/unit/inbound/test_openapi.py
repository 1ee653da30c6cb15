# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import json
from enum import Enum
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyCookie
from openapi_spec_validator import validate
from pydantic import BaseModel, Field

from jararaca_ws import (
    ConfigurationError,
    Get,
    Microservice,
    Post,
    Receive,
    RestController,
    Room,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRequest,
    WebSocketRouter,
    create_http_server,
    recoverable,
)
from jararaca_ws.inbound import openapi
from jararaca_ws.testing import connect, lifespan


class Opaque: ...


SCHEMAS = "#/components/schemas/"


class Move(WebSocketMessage):
    """A player moves."""

    MESSAGE_ID = "test_openapi.move"

    square: int


class Moved(WebSocketMessage):
    MESSAGE_ID = "test_openapi.moved"

    square: int


class Kept(WebSocketMessage):
    MESSAGE_ID = "test_openapi.kept"
    DELIVERY = recoverable(size=10)


class Confirm(WebSocketRequest[list[int]]):
    MESSAGE_ID = "test_openapi.confirm"


class GameRoom(Room[Moved | Kept], pattern="test-openapi-{number}"):
    number: int


class Up(BaseModel):
    action: Literal["up"]


class Down(BaseModel):
    action: Literal["down"]


def hosted(**options: Any) -> FastAPI:
    app = FastAPI()
    WebSocketInterceptor(**options).install(app)
    return app


def made_of(*controllers: type, **options: Any) -> FastAPI:
    return create_http_server(Microservice(controllers=controllers, interceptors=[WebSocketInterceptor()]), **options)


def router_of(cls: Any = Move, path: str = "", **options: Any) -> WebSocketRouter:
    router = WebSocketRouter(path, **options)

    @router.receive(cls)
    async def posted(message: cls) -> None: ...

    return router


def document_of(app: FastAPI) -> dict[str, Any]:
    document = app.openapi()
    validate(document)
    assert "x-jararaca" not in json.dumps(document)
    return document


def operation(document: dict[str, Any], path: str) -> dict[str, Any]:
    item = document["paths"][path]
    found: dict[str, Any] = item.get("post") or item["get"]
    return found


def schema(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = part["content"]["application/json"]["schema"]
    return found


def body(document: dict[str, Any], path: str) -> dict[str, Any]:
    return schema(operation(document, path)["requestBody"])


def reply(document: dict[str, Any], path: str) -> dict[str, Any]:
    return schema(operation(document, path)["responses"]["200"])


def callbacks(document: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    return {name: call["{$url}"]["post"] for name, call in operation(document, path).get("callbacks", {}).items()}


def properties(envelope: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = envelope["properties"]
    return found


def ref(name: str) -> dict[str, str]:
    return {"$ref": SCHEMAS + name}


class TestMessages:
    def test_what_a_controller_receives_with_its_reply_and_what_may_be_sent(self):
        session = APIKeyCookie(name="session")

        @RestController("/games", tags=["games"])
        class Controller:
            @WebSocketEndpoint("/{game}", sends=[Confirm])
            async def play_on(self, connection: WebSocketConnection, lang: str = "en") -> None:
                """Play.\f Not for readers of the document."""

            @Receive(Move, sends=[GameRoom])
            async def move(
                self,
                message: Move,
                game: int,
                depth: Annotated[int, Query(ge=1)],
                key: Annotated[str, Depends(session)],
            ) -> Moved:
                """Moves a piece."""
                return Moved(square=game)

        document = document_of(made_of(Controller))
        assert list(document["paths"]) == ["/games/{game} (WebSocket)", "/games/{game}: test_openapi.move"]
        handshake = operation(document, "/games/{game} (WebSocket)")
        assert (handshake["summary"], handshake["tags"], handshake["security"]) == (
            "Play On",
            ["games"],
            [{"APIKeyCookie": []}],
        )
        assert handshake["description"] == "Play.\n\nThe server may send `test_openapi.confirm`: see the callbacks."
        assert {(one["name"], one["in"], one["required"]) for one in handshake["parameters"]} == {
            ("game", "path", True),
            ("lang", "query", False),
            ("depth", "query", True),
        }
        assert list(handshake["responses"]) == ["101", "4XX"]

        path = "/games/{game}: test_openapi.move"
        move = operation(document, path)
        assert (move["summary"], move["tags"]) == ("Move", ["games"])
        assert move["description"].startswith("Moves a piece.\n\nWhat clients send over the WebSocket `/games/{game}`.")
        assert [one["schema"]["type"] for one in document["paths"][path]["parameters"]] == ["integer"]
        envelope = body(document, path)
        assert properties(envelope)["MESSAGE_ID"]["const"] == "test_openapi.move"
        assert properties(envelope)["message"] == ref("Move")
        assert envelope["required"] == ["MESSAGE_ID", "message"]
        with_ref, without = reply(document, path)["anyOf"]
        assert properties(with_ref)["MESSAGE_ID"]["const"] == "jararaca.reply"
        assert properties(with_ref)["message"] == properties(without)["message"] == ref("Moved")
        assert without["title"] == "test_openapi.moved"
        error = schema(move["responses"]["default"])
        assert list(properties(properties(error)["message"])) == ["code", "id", "retry_after_ms"]
        assert list(callbacks(document, path)) == ["test_openapi.moved", "test_openapi.kept"]

    def test_what_the_server_sends_has_its_place_and_what_it_asks_has_its_answer(self):
        app = hosted()
        app.include_router(router_of(sends=[Kept, Confirm, Up]), prefix="/ws")
        found = callbacks(document_of(app), "/ws (WebSocket)")
        kept, confirm, up = (
            schema(found[name]["requestBody"]) for name in ("test_openapi.kept", Confirm.MESSAGE_ID, "Up")
        )
        assert list(properties(kept)) == ["MESSAGE_ID", "message", "id", "room", "epoch", "offset"]
        assert "ref" in confirm["required"]
        assert up == ref("Up"), "no message of ours, so there is no envelope"
        answer = properties(schema(found[Confirm.MESSAGE_ID]["responses"]["200"]))
        assert answer["message"] == {"items": {"type": "integer"}, "type": "array"}
        assert list(found["test_openapi.kept"]["responses"]) == ["204"]

    def test_what_comes_in_is_described_as_it_is_validated_and_what_goes_out_as_it_is_serialized(self):
        class Aliased(WebSocketMessage):
            MESSAGE_ID = "test_openapi.aliased"

            text: str = Field(validation_alias="comes", serialization_alias="goes")

        app = hosted()
        router = WebSocketRouter("/ws", sends=[Aliased])

        @router.receive(Aliased)
        async def posted(message: Aliased) -> Aliased:
            return message

        app.include_router(router)
        document = document_of(app)

        def fields(envelope: dict[str, Any]) -> list[str]:
            name = properties(envelope)["message"]["$ref"].removeprefix(SCHEMAS)
            return list(document["components"]["schemas"][name]["properties"])

        path = "/ws: test_openapi.aliased"
        assert fields(body(document, path)) == ["comes"]
        assert [fields(arm) for arm in reply(document, path)["anyOf"]] == [["goes"], ["goes"]]
        (sent,) = callbacks(document, "/ws (WebSocket)").values()
        assert fields(schema(sent["requestBody"])) == ["goes"]

    @pytest.mark.parametrize(
        ("returned", "described"),
        [
            (None, {"type": "null"}),
            (int, {"type": "integer"}),
            (Up, ref("Up")),
            (Up | None, {"anyOf": [ref("Up"), {"type": "null"}]}),
            (Opaque, {}),
            ("nothing is said", {}),
        ],
        ids=str,
    )
    def test_the_reply_is_what_the_handler_returns(self, returned: Any, described: dict[str, Any]):
        router = WebSocketRouter("/ws")

        async def posted(message: Move) -> Any: ...

        posted.__annotations__["return"] = returned
        if returned == "nothing is said":
            del posted.__annotations__["return"]
        router.receive(Move)(posted)
        app = hosted()
        app.include_router(router)
        assert properties(reply(document_of(app), "/ws: test_openapi.move"))["message"] == described

    def test_without_envelopes(self):
        router = WebSocketRouter("/ws", discriminator="action", binary=True)

        @router.receive(Up)
        async def up(message: Up) -> Down | Moved | None: ...

        @router.receive(Down)
        async def down(message: Down) -> None: ...

        app = hosted()
        app.include_router(router)
        document = document_of(app)
        assert body(document, "/ws: Up") == ref("Up")
        value, message = reply(document, "/ws: Up")["anyOf"]
        assert (value, message["title"]) == (ref("Down"), "test_openapi.moved")
        assert list(operation(document, "/ws: Down")["responses"]) == ["204", "default"]
        assert "binary frames" in operation(document, "/ws: Up")["description"]

    def test_with_a_dispatcher_messages_come_as_it_reads_them(self):
        async def dispatcher(connection: Any, handlers: Any, raw: Any) -> None: ...

        app = hosted()
        app.include_router(router_of(path="/ws", dispatcher=dispatcher))
        app.include_router(WebSocketRouter("/bare", dispatcher=dispatcher))
        document = document_of(app)
        assert list(document["paths"]) == ["/ws (WebSocket)", "/bare (WebSocket)", "/ws: Move"]
        assert body(document, "/ws: Move") == ref("Move")

    def test_what_clients_may_ask_of_rooms(self):
        class Controller:
            @WebSocketEndpoint("/all", client_rooms=[GameRoom], client_sends=[Moved, Kept])
            async def both(self, connection: WebSocketConnection) -> None: ...

            @WebSocketEndpoint("/some", client_rooms=[GameRoom])
            async def some(self, connection: WebSocketConnection) -> None: ...

        document = document_of(made_of(Controller))
        asked = [path for path in document["paths"] if "WebSocket" not in path]
        names = ["join", "leave", "send", "join", "leave"]
        assert [path.partition(".")[2] for path in asked] == names
        assert list(callbacks(document, "/some (WebSocket)")) == ["test_openapi.moved", "test_openapi.kept"]
        assert "`test-openapi-{number}`" in operation(document, "/all: jararaca.join")["description"]
        joined = reply(document, "/all: jararaca.join")
        assert properties(joined)["message"] == ref("Joined")
        arms = properties(body(document, "/all: jararaca.send"))["message"]["anyOf"]
        assert [properties(arm)["MESSAGE_ID"]["const"] for arm in arms] == [Moved.MESSAGE_ID, Kept.MESSAGE_ID]

    def test_names_and_paths_of_any_kind_make_a_valid_document(self):
        class Braces(WebSocketMessage):
            MESSAGE_ID = "test_openapi/{odd} ~name"

        class Dotted(WebSocketMessage):
            MESSAGE_ID = "test.openapi.a"

        class Lined(WebSocketMessage):
            MESSAGE_ID = "test.openapi_a"

        router = WebSocketRouter("/{tenant}/{rest:path}")
        for cls in (Braces, Dotted, Lined):
            router.receive(cls)(posted_any)
        app = hosted()
        app.include_router(router)
        document = document_of(app)
        assert "/{tenant}/{rest}: test_openapi/%7Bodd%7D ~name" in document["paths"]
        ids = [operation(document, path)["operationId"] for path in document["paths"]]
        assert len(set(ids)) == 4

    @pytest.mark.parametrize("sends", [[1], ["Move"], [int], [WebSocketMessage]])
    def test_what_cannot_be_sent_is_refused_at_once(self, sends: Any):
        for declare in (
            lambda: WebSocketRouter(sends=sends),
            lambda: WebSocketRouter().receive(Move, sends=sends),
            lambda: Receive(Move, sends=sends),
            lambda: WebSocketEndpoint("/ws", sends=sends),
        ):
            with pytest.raises(ConfigurationError, match="sends"):
                declare()


async def posted_any(message: Any = None) -> None: ...


class TestTheDocument:
    def test_routers_are_where_they_are_included(self):
        app = hosted()
        router = WebSocketRouter("/{hall}", tags=["own"])

        @router.on_connect
        async def connected(x_user: Annotated[str, Header()]) -> None:
            """Come in."""

        @router.receive(Move)
        async def posted(message: Move, hall: int) -> None: ...

        nested = APIRouter(prefix="/halls")
        nested.include_router(router, prefix="/big")
        app.include_router(nested, prefix="/a", tags=["included"])
        app.include_router(router, prefix="/b")
        document = document_of(app)
        assert list(document["paths"]) == [
            "/a/halls/big/{hall} (WebSocket)",
            "/b/{hall} (WebSocket)",
            "/a/halls/big/{hall}: test_openapi.move",
            "/b/{hall}: test_openapi.move",
        ]
        one = operation(document, "/a/halls/big/{hall} (WebSocket)")
        assert (one["tags"], one["description"]) == (["included", "own"], "Come in.")
        assert {(p["name"], p["in"], p["schema"]["type"]) for p in one["parameters"]} == {
            ("hall", "path", "integer"),
            ("x-user", "header", "string"),
        }
        assert operation(document, "/a/halls/big/{hall}: test_openapi.move")["tags"] == ["included", "own"]

    def test_what_is_included_later_is_in_it(self):
        app = hosted()
        app.include_router(router_of(), prefix="/one")
        assert "/one (WebSocket)" in document_of(app)["paths"]
        app.include_router(router_of(Moved), prefix="/two")
        app.openapi_schema = None  # older FastAPI does not see by itself that there is more
        paths = document_of(app)["paths"]
        assert {"/one: test_openapi.move", "/two: test_openapi.moved"} <= set(paths)

    def test_it_can_be_switched_off_everywhere(self):
        @RestController("/hidden", include_in_schema=False)
        class Hidden:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None: ...

        class Controller:
            @WebSocketEndpoint("/off", include_in_schema=False)
            async def off(self, connection: WebSocketConnection) -> None: ...

            @Receive(Move, endpoint="off")
            async def move(self, message: Move) -> None: ...

            @WebSocketEndpoint("/on")
            async def on(self, connection: WebSocketConnection) -> None: ...

        app = made_of(Hidden, Controller)
        app.include_router(router_of(include_in_schema=False), prefix="/router")
        outer = APIRouter()
        outer.include_router(router_of(), prefix="/inclusion")
        app.include_router(outer, prefix="/nested", include_in_schema=False)
        document = document_of(app)
        assert list(document["paths"]) == ["/on (WebSocket)"]
        assert "components" not in document

        off = WebSocketInterceptor(include_in_schema=False)
        app = create_http_server(Microservice(controllers=[Controller], interceptors=[off]))
        app.include_router(router_of(), prefix="/ws")
        assert document_of(app)["paths"] == {}

    def test_components_of_http_keep_their_names(self):
        http_move = type("Move", (BaseModel,), {"__annotations__": {"piece": Piece}, "__module__": "elsewhere"})

        @RestController("/moves")
        class Controller:
            @Post("/")
            async def post(self, move: Annotated[Any, Depends(lambda: None)], moved: Moved) -> http_move: ...  # type: ignore[valid-type]

            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None: ...

            @Receive(Move)
            async def move(self, message: Move) -> Moved: ...

        document = document_of(made_of(Controller))
        schemas = document["components"]["schemas"]
        assert list(schemas["Move"]["properties"]) == ["piece"]
        assert properties(body(document, "/moves/ws: test_openapi.move"))["message"] == ref("Move-WebSocket")
        assert list(schemas["Move-WebSocket"]["properties"]) == ["square"]
        assert {name for name in schemas if name.startswith("Moved")} == {"Moved"}, "it is the same in both"

    def test_what_refers_to_a_component_of_another_name_follows_it(self):
        inner = type("Inner", (BaseModel,), {"__annotations__": {"n": int}, "__module__": "one"})
        other = type("Inner", (BaseModel,), {"__annotations__": {"text": str}, "__module__": "other"})
        outer = {"__annotations__": {"inner": inner}, "__module__": "one", "MESSAGE_ID": "test_openapi.outer"}
        message = type("Outer", (WebSocketMessage,), outer)
        http = type("Outer", (BaseModel,), {"__annotations__": {"inner": other}, "__module__": "other"})
        app = hosted()

        @app.get("/outer", response_model=http)
        async def get() -> None: ...

        app.include_router(router_of(message), prefix="/ws")
        document = document_of(app)
        schemas = document["components"]["schemas"]
        name = properties(body(document, "/ws: test_openapi.outer"))["message"]["$ref"].removeprefix(SCHEMAS)
        assert schemas[name]["properties"]["inner"] == ref("Inner-WebSocket")
        assert schemas["Outer"]["properties"]["inner"] == ref("Inner")

    def test_ids_of_operations_are_none_of_the_applications_business(self):
        app = FastAPI(generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}")
        WebSocketInterceptor().install(app)
        app.include_router(router_of(), prefix="/ws")
        document = document_of(app)
        ids = [operation(document, path)["operationId"] for path in document["paths"]]
        assert ids == ["connect_websocket_ws", "ws__test_openapi_move"]

    def test_it_is_made_once_and_only_when_somebody_asks(self, monkeypatch: pytest.MonkeyPatch):
        made = []
        generated = openapi._generated
        monkeypatch.setattr(openapi, "_generated", lambda kinds: made.append(1) or generated(kinds))
        app = hosted()
        app.include_router(router_of(), prefix="/ws")
        assert made == []
        assert document_of(app) is document_of(app)
        assert made == [1]

    async def test_it_is_served_with_the_root_path(self):
        app = hosted()
        app.include_router(router_of(), prefix="/ws")
        transport = httpx.ASGITransport(app, root_path="/behind")
        async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            document = (await http.get("/behind/openapi.json")).json()
            validate(document)
            assert document["servers"] == [{"url": "/behind"}]
            assert "/ws: test_openapi.move" in document["paths"]
            assert (await http.get("/behind/docs")).status_code == 200

    async def test_nothing_is_served_on_the_paths_of_the_document(self):
        app = hosted()
        app.include_router(router_of(), prefix="/ws")
        async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            for path, status in (("/ws (WebSocket)", 404), ("/ws: test_openapi.move", 404), ("/ws", 426)):
                assert [(await http.request(method, path)).status_code for method in ("GET", "POST")] == [status] * 2
            async with connect(app, "/ws") as socket:
                await socket.send_text('{"MESSAGE_ID": "test_openapi.move", "message": {"square": 1}, "ref": "1"}')
                assert (await socket.receive_json())["message"] is None


class Piece(Enum):
    KING = "king"


class TestOverrides:
    """Applications replace `app.openapi`, as FastAPI's documentation says."""

    def test_one_that_was_there_before(self):
        app = FastAPI()
        app.openapi = generating(app)  # type: ignore[method-assign]
        WebSocketInterceptor().install(app)
        app.include_router(router_of(), prefix="/ws")
        assert document_of(app)["info"]["title"] == "Mine"
        assert "/ws: test_openapi.move" in document_of(app)["paths"]

    @pytest.mark.parametrize("host", [hosted, made_of])
    async def test_one_that_was_put_there_later(self, host: Any):
        app = host()
        app.openapi = generating(app)
        app.include_router(router_of(), prefix="/ws")
        for _ in range(2):
            async with lifespan(app):
                document = document_of(app)
            assert document["info"]["title"] == "Mine"
            assert "/ws: test_openapi.move" in document["paths"]

    async def test_one_that_goes_on_from_ours(self):
        app = made_of()
        app.include_router(router_of(), prefix="/ws")
        before = app.openapi

        def mine() -> dict[str, Any]:
            document = before()
            document["info"]["x-mine"] = len(document["paths"])
            return document

        app.openapi = mine  # type: ignore[method-assign]
        assert document_of(app)["info"]["x-mine"] == 2
        async with lifespan(app):
            assert document_of(app)["info"]["x-mine"] == 2

    async def test_routes_of_interceptors_that_the_container_builds_are_in_it_while_they_run(self):
        class Controller:
            @Get("/plain")
            async def plain(self) -> None: ...

            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None: ...

        app = create_http_server(Microservice(controllers=[rest(Controller)], interceptors=[WebSocketInterceptor]))
        assert list(document_of(app)["paths"]) == ["/plain"]
        async with lifespan(app):
            assert list(document_of(app)["paths"]) == ["/plain", "/ws (WebSocket)"]


def rest(cls: type) -> type:
    return RestController("")(cls)


def generating(app: FastAPI) -> Any:
    def mine() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="Mine", version="1", routes=app.routes)
        return app.openapi_schema

    return mine
