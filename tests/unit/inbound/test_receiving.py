# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, Header, HTTPException, Query, WebSocketException
from pydantic import BaseModel

from jararaca_ws.context import use_ws_manager
from jararaca_ws.errors import BackendUnavailable, ConfigurationError
from jararaca_ws.inbound.receiving import Receive
from jararaca_ws.interceptors.base import AppTransactionContext
from jararaca_ws.interceptors.websocket import WebSocketInterceptor
from jararaca_ws.messages import WebSocketMessage
from jararaca_ws.routing import WebSocketEndpoint
from jararaca_ws.settings import WebSocketSettings
from jararaca_ws.sockets.connection import WebSocketConnection
from jararaca_ws.testing import InLoopWebSocket, connect
from jararaca_ws.wire.protocol import SUBPROTOCOL
from tests.unit.apps import application, end_of, running
from tests.unit.played import errors_in, turns, until


class Posted(WebSocketMessage):
    MESSAGE_ID = "test_receiving.posted"

    text: str


class Cleared(WebSocketMessage):
    MESSAGE_ID = "test_receiving.cleared"


class Told(WebSocketMessage):
    MESSAGE_ID = "test_receiving.told"

    what: Any = None


async def send(socket: InLoopWebSocket, message: WebSocketMessage, ref: str | None = None) -> None:
    envelope = {"MESSAGE_ID": message.MESSAGE_ID, "message": message.model_dump()}
    await socket.send_text(json.dumps(envelope if ref is None else {**envelope, "ref": ref}))


async def told(socket: InLoopWebSocket) -> Any:
    return (await socket.receive_json())["message"]["what"]


class Endpoint:
    @WebSocketEndpoint("/ws/{room}")
    async def serve(self, connection: WebSocketConnection, room: str) -> None:
        await connection.join(room)


class Log:
    """An interceptor that writes down what it goes around."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.open = 0

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        data = app_context.transaction_data
        assert data.context_type == "websocket"
        assert isinstance(data.connection, WebSocketConnection)
        name = app_context.handler.__name__
        self.steps.append(f"{name} {type(data.message).__name__}")
        self.open += 1
        try:
            yield
            self.steps.append(f"{name} succeeded")
        finally:
            self.open -= 1


class TestHandlers:
    async def test_a_message_goes_to_the_handler_of_its_class(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted, connection: WebSocketConnection) -> None:
                await connection.send(Told(what=message.text))

            @Receive(Cleared)
            async def cleared(self) -> Told:
                return Told(what="cleared")

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text="hello"))
            await send(socket, Cleared())
            assert [await told(socket) for _ in range(2)] == ["hello", "cleared"]

    async def test_the_endpoint_need_ask_for_nothing(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(self, message: Posted) -> Told:
                return Told(what=message.text)

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await send(socket, Posted(text="hello"))
            assert await told(socket) == "hello"
            assert len(app.manager.connections) == 1

    async def test_each_message_has_a_controller_of_its_own_with_its_services(self):
        class Service:
            pass

        seen: list[Any] = []

        class Controller(Endpoint):
            def __init__(self, service: Service) -> None:
                self.service = service

            @Receive(Posted)
            async def posted(self) -> Told:
                seen.append(self)
                return Told(what=isinstance(self.service, Service))

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            for _ in range(2):
                await send(socket, Posted(text=""))
                assert await told(socket) is True
        assert seen[0] is not seen[1]

    async def test_an_endpoint_that_reads_by_itself_gets_what_it_reads(self):
        class Controller:
            @WebSocketEndpoint("/ws")
            async def serve(self, connection: WebSocketConnection) -> None:
                async for message in connection:
                    await connection.send(Told(what=f"endpoint: {message.text}"))  # type: ignore[attr-defined]
                    return

            @Receive(Posted)
            async def posted(self, message: Posted) -> Told:
                return Told(what=f"handler: {message.text}")

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await send(socket, Posted(text="one"))
            await send(socket, Posted(text="two"))
            assert [await told(socket) for _ in range(2)] == ["endpoint: one", "handler: two"]

    async def test_what_was_received_before_the_client_went_is_handled(self):
        handled: list[str] = []

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted) -> None:
                await asyncio.sleep(0)
                handled.append(message.text)

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            for n in range(5):
                await send(socket, Posted(text=str(n)))
        assert handled == ["0", "1", "2", "3", "4"]

    async def test_a_handshake_that_was_not_accepted_is_refused(self):
        class Controller:
            @WebSocketEndpoint("/ws", accept=False)
            async def serve(self, connection: WebSocketConnection) -> None: ...

            @Receive(Posted)
            async def posted(self) -> None:
                pytest.fail("it ran")

        async with running(Controller) as app:
            assert (await end_of(app, "/ws")).code == 1000


class TestEndpoints:
    async def test_the_endpoint_is_named_where_there_are_several(self):
        class Controller:
            @WebSocketEndpoint("/one")
            async def one(self) -> None: ...

            @WebSocketEndpoint("/two")
            async def two(self) -> None: ...

            @Receive(Posted, endpoint="one")
            async def posted_to_one(self) -> Told:
                return Told(what=1)

            @Receive(Posted, endpoint="two")
            async def posted_to_two(self) -> Told:
                return Told(what=2)

        async with running(Controller) as app:
            for path, expected in (("/one", 1), ("/two", 2)):
                async with connect(app.asgi, path) as socket:
                    await send(socket, Posted(text=""))
                    assert await told(socket) == expected

    def test_mistakes_are_refused_when_the_application_is_made(self):
        class Two:
            @WebSocketEndpoint("/one")
            async def one(self) -> None: ...

            @WebSocketEndpoint("/two")
            async def two(self) -> None: ...

            @Receive(Posted)
            async def posted(self) -> None: ...

        class None_:
            @Receive(Posted)
            async def posted(self) -> None: ...

        class Other(Endpoint):
            @Receive(Posted, endpoint="nobody")
            async def posted(self) -> None: ...

        class Twice(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None: ...

            @Receive(Posted)
            async def posted_too(self) -> None: ...

        class Body(Endpoint):
            @Receive(Posted)
            async def posted(self, wrong: Told) -> None: ...

        class Unknown(Endpoint):
            @Receive(Posted)
            async def posted(self, wrong: Log) -> None: ...

        class Abstract(WebSocketMessage):
            pass

        class Unset(Endpoint):
            @Receive(Abstract)
            async def posted(self) -> None: ...

        for controller, problem in (
            (Two, "several endpoints"),
            (None_, "no @WebSocketEndpoint"),
            (Other, "no @WebSocketEndpoint 'nobody'"),
            (Twice, r"posted and .*posted_too handle Posted"),
            (Body, r"posted: FastAPI would read 'wrong' from a body"),
            (Unknown, "asks for what FastAPI cannot give"),
            (Unset, "Abstract has no MESSAGE_ID"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                application(controller)

    def test_mistakes_are_refused_where_they_are_written(self):
        with pytest.raises(ConfigurationError, match="not async"):

            @Receive(Posted)  # type: ignore[type-var]
            def posted(self: Any) -> None: ...

        with pytest.raises(ConfigurationError, match="cannot be received"):
            Receive(int)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="concurrency=0"):
            WebSocketEndpoint("/ws", concurrency=0)


class TestUnitsOfWork:
    async def test_each_message_is_one_and_an_idle_socket_holds_none(self):
        log = Log()

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted) -> Told:
                return Told(what=log.open)

        async with running(Controller, others=[log]) as app, connect(app.asgi, "/ws/a") as socket:
            await until(lambda: log.steps == ["serve NoneType", "serve succeeded"])
            assert log.open == 0
            await send(socket, Posted(text=""))
            assert await told(socket) == 1
            assert log.open == 0
        assert log.steps[2:] == ["posted Posted", "posted succeeded"]

    async def test_100_idle_sockets_with_a_database_session_interceptor_hold_0_sessions(self):
        log = Log()

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None: ...

        async with running(Controller, others=[log]) as app:
            sockets = [connect(app.asgi, "/ws/a") for _ in range(100)]
            for opened in sockets:
                await send(await opened.__aenter__(), Posted(text=""))
            await until(lambda: log.steps.count("posted succeeded") == 100)
            assert (len(app.manager.connections), log.open) == (100, 0)
            await asyncio.gather(*(opened.__aexit__(None, None, None) for opened in sockets))

    async def test_what_a_handler_sends_leaves_when_it_succeeds_and_never_when_it_fails(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted, room: str) -> None:
                await Told(what=message.text).send(room)
                await Told(what="now").send_now(room)
                if message.text == "fails":
                    raise RuntimeError

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text="fails"))
            await send(socket, Posted(text="succeeds"))
            assert [await told(socket) for _ in range(3)] == ["now", "now", "succeeds"]

    async def test_what_the_endpoint_sends_leaves_at_once(self):
        class Controller:
            @WebSocketEndpoint("/ws/{room}")
            async def serve(self, connection: WebSocketConnection, room: str) -> None:
                await connection.join(room)
                await Told(what="at once").send(room)
                await connection.closed.wait()

            @Receive(Posted)
            async def posted(self) -> None: ...

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            assert await told(socket) == "at once"

    async def test_the_manager_is_bound_in_a_handler(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> Told:
                return Told(what=len(use_ws_manager().connections))

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""))
            assert await told(socket) == 1


class TestReplies:
    async def test_a_ref_gets_exactly_one_reply(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted) -> Any:
                match message.text:
                    case "message":
                        return Told(what=1)
                    case "value":
                        return {"n": [1, None]}

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            for text, reply in (("message", {"what": 1}), ("value", {"n": [1, None]}), ("nothing", None)):
                await send(socket, Posted(text=text), ref=f"r-{text}")
                expected = {"MESSAGE_ID": "jararaca.reply", "ref": f"r-{text}", "message": reply}
                assert await socket.receive_json() == expected

    async def test_without_a_ref_a_message_goes_back_as_it_is_and_nothing_else_does(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, message: Posted) -> Any:
                return Told(what=1) if message.text == "message" else {"n": 1}

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text="value"))
            await send(socket, Posted(text="message"))
            assert await socket.receive_json() == {"MESSAGE_ID": Told.MESSAGE_ID, "message": {"what": 1}}

    async def test_a_reply_leaves_after_what_was_staged(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, room: str) -> Told:
                await Told(what="staged").send(room)
                return Told(what="reply")

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""))
            assert [await told(socket) for _ in range(2)] == ["staged", "reply"]

    async def test_a_reply_that_cannot_be_encoded_fails_the_unit_of_work(self, caplog: pytest.LogCaptureFixture):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, room: str) -> Any:
                await Told(what="staged").send(room)
                return {"n": float("nan")}

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""), ref="1")
            error = await socket.receive_json()
            assert (error["ref"], error["message"]["code"]) == ("1", "internal_error")
        assert len(errors_in(caplog)) == 1


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code", "is_ours"),
        [
            (RuntimeError("the secret inside"), "internal_error", True),
            (HTTPException(403, "the secret inside"), "permission_denied", False),
            (HTTPException(404), "bad_request", False),
            (HTTPException(500), "internal_error", True),
            (BackendUnavailable("the secret inside"), "unavailable", False),
            (asyncio.CancelledError(), "internal_error", True),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
    )
    @pytest.mark.parametrize("ref", ["r", None])
    async def test_a_handler_that_raises_is_told_and_the_connection_goes_on(
        self, error: BaseException, code: str, is_ours: bool, ref: str | None, caplog: pytest.LogCaptureFixture
    ):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None:
                raise error

            @Receive(Cleared)
            async def cleared(self) -> Told:
                return Told(what="goes on")

        async with running(Controller) as app, connect(app.asgi, "/ws/a", subprotocols=[SUBPROTOCOL]) as socket:
            await send(socket, Posted(text=""), ref)
            answer = await socket.receive_json()
            assert answer["MESSAGE_ID"] == "jararaca.error"
            assert (answer.get("ref"), answer["message"]["code"]) == (ref, code)
            assert "secret" not in json.dumps(answer)
            (record,) = [one for one in caplog.records if answer["message"]["id"] in one.getMessage()]
            assert record.levelno == (logging.ERROR if is_ours else logging.WARNING)
            await send(socket, Cleared())
            assert await told(socket) == "goes on"
        assert len(errors_in(caplog)) == is_ours

    async def test_a_client_without_the_subprotocol_is_told_only_where_it_waits(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None:
                raise HTTPException(403)

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""))
            await send(socket, Posted(text=""), "r")
            assert (await socket.receive_json())["ref"] == "r"

    @pytest.mark.parametrize(
        ("text", "code", "ref"),
        [
            ("no JSON", "bad_request", None),
            ('{"MESSAGE_ID": "test_receiving.posted", "message": {}, "ref": "r"}', "bad_request", "r"),
            ('{"MESSAGE_ID": "test_receiving.posted", "message": {"text": ""}, "ref": 1}', "bad_request", None),
            ('{"MESSAGE_ID": "test_receiving.told", "message": {}, "ref": "r"}', "unknown_type", "r"),
            ('{"MESSAGE_ID": "jararaca.gap", "message": {}}', "unknown_type", None),
            ('{"message": {"text": ""}}', "bad_request", None),
            ('{"MESSAGE_ID": "test_receiving.posted", "message": {"text": ""}, "more": NaN}', "bad_request", None),
        ],
    )
    @pytest.mark.parametrize("count", [1, 2], ids=["one class", "two classes"])
    async def test_what_is_no_message_of_the_endpoint_is_refused(
        self, text: str, code: str, ref: str | None, count: int
    ):
        class One(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None:
                pytest.fail("it ran")

        class Two(One):
            @Receive(Cleared)
            async def cleared(self) -> None: ...

        async with (
            running(One if count == 1 else Two) as app,
            connect(app.asgi, "/ws/a", subprotocols=[SUBPROTOCOL]) as socket,
        ):
            for _ in range(3):
                await socket.send_text(text)
                error = await socket.receive_json()
                assert (error["message"]["code"], error.get("ref")) == (code, ref)
            assert (await socket.closed()).code == 4501

    async def test_a_binary_frame_closes(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None: ...

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await socket.send_bytes(b"{}")
            assert (await socket.closed()).code == 1003

    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_a_handler_can_end_the_connection(self, concurrency: int, caplog: pytest.LogCaptureFixture):
        class Controller:
            @WebSocketEndpoint("/ws", concurrency=concurrency)
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(self) -> None:
                raise WebSocketException(code=4507, reason="not you")

            @Receive(Cleared)
            async def cleared(self, connection: WebSocketConnection) -> None:
                await connection.close(4508, "enough")

        async with running(Controller) as app:
            for message, code in ((Posted(text=""), 4507), (Cleared(), 4508)):
                async with connect(app.asgi, "/ws") as socket:
                    await send(socket, message)
                    assert (await socket.closed()).code == code
            assert len(app.manager.connections) == 0
        assert not errors_in(caplog)

    async def test_what_came_after_the_end_is_not_handled(self):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None:
                await turns()  # the next message is in the queue
                raise WebSocketException(code=4507)

            @Receive(Cleared)
            async def cleared(self) -> None:
                pytest.fail("it ran")

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""))
            await send(socket, Cleared())
            assert (await socket.closed()).code == 4507

    async def test_an_interceptor_that_swallows_the_error_leaves_no_client_waiting(self):
        class Swallows:
            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                with suppress(RuntimeError):
                    yield

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self) -> None:
                raise RuntimeError

        async with running(Controller, others=[Swallows()]) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""), "r")
            answer = await socket.receive_json()
            assert (answer["ref"], answer["message"]["code"]) == ("r", "internal_error")

    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_a_handler_that_hangs_is_cancelled_after_its_client(self, concurrency: int):
        cancelled = asyncio.Event()

        class Controller:
            @WebSocketEndpoint("/ws", concurrency=concurrency)
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(self) -> None:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.set()
                    raise

        interceptor = WebSocketInterceptor(settings=WebSocketSettings(handler_grace=timedelta(0)))
        before = asyncio.all_tasks()
        async with running(Controller, interceptor=interceptor) as app:
            async with connect(app.asgi, "/ws") as socket:
                await send(socket, Posted(text=""))
                await turns()
            assert cancelled.is_set()
            assert len(app.manager.connections) == 0
        assert asyncio.all_tasks() == before


class TestOrder:
    @staticmethod
    def controller(concurrency: int) -> tuple[type, list[str], asyncio.Event]:
        running: list[str] = []
        go = asyncio.Event()

        class Controller:
            @WebSocketEndpoint("/ws", concurrency=concurrency)
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(self, message: Posted) -> Told:
                running.append(message.text)
                await go.wait()
                return Told(what=message.text)

        return Controller, running, go

    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_no_more_messages_are_handled_at_once_than_allowed(self, concurrency: int):
        controller, handling, go = self.controller(concurrency)
        async with running(controller) as app, connect(app.asgi, "/ws") as socket:
            for n in range(10):
                await send(socket, Posted(text=str(n)))
            await until(lambda: len(handling) == concurrency)
            await turns()
            assert handling == [str(n) for n in range(concurrency)]
            go.set()
            replies = [await told(socket) for _ in range(10)]
        assert replies == [str(n) for n in range(10)]

    @pytest.mark.parametrize("concurrency", [1, 3])
    async def test_a_client_that_floods_is_not_read(self, concurrency: int):
        controller, handling, go = self.controller(concurrency)
        interceptor = WebSocketInterceptor(settings=WebSocketSettings(max_inbound_messages=4))
        async with running(controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
            for n in range(50):
                await send(socket, Posted(text=str(n)))
            await until(lambda: len(handling) == concurrency)
            await turns()
            # Those in the handlers, those in the queue, and the one that waits for a place in it.
            assert socket._to_app.qsize() == 50 - concurrency - 4 - 1
            go.set()
            assert [await told(socket) for _ in range(50)] == [str(n) for n in range(50)]


class TestFlatPayloads:
    async def test_a_discriminator_chooses_where_there_is_no_envelope(self):
        class Say(BaseModel):
            action: Literal["say"]
            text: str

        class Leave(BaseModel):
            action: Literal["leave"]

        class Controller:
            @WebSocketEndpoint("/ws", discriminator="action")
            async def serve(self) -> None: ...

            @Receive(Say)
            async def say(self, message: Say) -> Any:
                return {"said": message.text}

            @Receive(Leave)
            async def leave(self, connection: WebSocketConnection) -> None:
                await connection.close()

        async with running(Controller) as app, connect(app.asgi, "/ws", subprotocols=[SUBPROTOCOL]) as socket:
            await socket.send_text('{"action": "say", "text": "hello"}')
            assert await socket.receive_json() == {"said": "hello"}
            await socket.send_text('{"action": "fly"}')
            assert (await socket.receive_json())["message"]["code"] == "unknown_type"
            await socket.send_text('{"action": "say"}')
            assert (await socket.receive_json())["message"]["code"] == "bad_request"
            await socket.send_text('{"action": "leave"}')
            assert (await socket.closed()).code == 1000

    def test_a_discriminator_that_cannot_be_one_is_refused(self):
        class Controller:
            @WebSocketEndpoint("/ws", discriminator="text")
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(self) -> None: ...

            @Receive(Cleared)
            async def cleared(self) -> None: ...

        with pytest.raises(ConfigurationError, match="cannot be told from each other"):
            application(Controller)


class TestDependencies:
    async def test_parameters_of_the_handshake_and_dependencies_with_yield(self):
        steps: list[str] = []

        async def session(x_user: Annotated[str, Header()]) -> AsyncIterator[str]:
            steps.append("opened")
            yield f"session of {x_user}"
            steps.append("closed")

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(
                self,
                message: Posted,
                room: str,
                session: Annotated[str, Depends(session)],
                q: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
                limit: int = 5,
            ) -> Told:
                steps.append("handled")
                return Told(what=[message.text, room, session, q, limit])

        headers = {"X-User": "ann"}
        async with running(Controller) as app, connect(app.asgi, "/ws/a?q=x&q=y", headers=headers) as socket:
            for text in ("one", "two"):
                await send(socket, Posted(text=text))
                assert await told(socket) == [text, "a", "session of ann", ["x", "y"], 5]
            assert steps == ["opened", "handled", "closed"] * 2

    async def test_a_dependency_that_raises_refuses_the_message(self):
        def refuse() -> None:
            raise HTTPException(401)

        class Controller(Endpoint):
            @Receive(Posted, dependencies=[Depends(refuse)])
            async def posted(self) -> None:
                pytest.fail("it ran")

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            await send(socket, Posted(text=""), "r")
            assert (await socket.receive_json())["message"]["code"] == "permission_denied"

    async def test_b15_a_parameter_that_does_not_fit_refuses_the_message(self, caplog: pytest.LogCaptureFixture):
        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, limit: int) -> None:
                pytest.fail("it ran")

        async with running(Controller) as app, connect(app.asgi, "/ws/a?limit=hunter2") as socket:
            await send(socket, Posted(text=""), "r")
            assert (await socket.receive_json())["message"]["code"] == "bad_request"
        assert "query.limit: int_parsing" in caplog.text
        assert "hunter2" not in caplog.text

    async def test_an_override_of_the_application_counts(self):
        def answer() -> int:
            return 1

        class Controller(Endpoint):
            @Receive(Posted)
            async def posted(self, answer: Annotated[int, Depends(answer)]) -> Told:
                return Told(what=answer)

        async with running(Controller) as app, connect(app.asgi, "/ws/a") as socket:
            app.asgi.dependency_overrides[answer] = lambda: 42
            await send(socket, Posted(text=""))
            assert await told(socket) == 42

    async def test_messages_that_are_handled_at_the_same_time_close_each_their_own(self):
        opened: list[str] = []
        go = asyncio.Event()

        async def inner() -> AsyncIterator[str]:
            name = f"s{len(opened)}"
            opened.append(name)
            await asyncio.sleep(0)
            yield name
            opened.remove(name)

        async def slow() -> None:
            await turns(3)

        async def outer(inner: Annotated[str, Depends(inner)]) -> AsyncIterator[str]:
            yield inner
            assert inner in opened

        class Controller:
            @WebSocketEndpoint("/ws", concurrency=2)
            async def serve(self) -> None: ...

            @Receive(Posted)
            async def posted(
                self,
                message: Posted,
                slow: Annotated[None, Depends(slow)],
                session: Annotated[str, Depends(outer)],
            ) -> Told:
                if message.text == "waits":
                    await go.wait()
                assert session in opened
                return Told(what=session)

        async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
            await send(socket, Posted(text="waits"))
            await send(socket, Posted(text=""))
            assert await told(socket) == "s1"
            assert opened == ["s0"]
            go.set()
            assert await told(socket) == "s0"
            assert opened == []
