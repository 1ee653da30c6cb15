# No `from __future__ import annotations`: FastAPI reads annotations that are local to a test at run time.
import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from jararaca_ws import (
    CloseCode,
    ConfigurationError,
    InvalidMessage,
    Receive,
    WebSocketConnection,
    WebSocketEndpoint,
    WebSocketInterceptor,
    WebSocketMessage,
    WebSocketRouter,
    WebSocketSettings,
)
from jararaca_ws.testing import InLoopWebSocket, connect
from tests.unit.apps import running
from tests.unit.played import errors_in, until

SHORT = timedelta(seconds=0.02)
SETTINGS = WebSocketSettings(handler_timeout=SHORT, handler_grace=SHORT)


class Wait(WebSocketMessage):
    MESSAGE_ID = "test_time_limits.wait"

    how: str = ""


class Ping(WebSocketMessage):
    MESSAGE_ID = "test_time_limits.ping"


async def ask(socket: InLoopWebSocket, message: WebSocketMessage, ref: str = "1") -> Any:
    await socket.send_text(json.dumps({"MESSAGE_ID": message.MESSAGE_ID, "message": message.model_dump(), "ref": ref}))
    return await socket.receive_json()


def a_code(envelope: Any) -> Any:
    return envelope["message"]["code"]


class Pinged:
    @WebSocketEndpoint("/ws")
    async def serve(self, connection: WebSocketConnection) -> None:
        await connection.join("room")

    @Receive(Ping)
    async def ping(self) -> str:
        return "pong"


@pytest.mark.parametrize("set_by", ["settings", "endpoint", "handler"])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_handler_that_takes_too_long_is_cancelled_and_its_client_told(
    set_by: str, concurrency: int, caplog: pytest.LogCaptureFixture
):
    cancelled: list[str] = []

    class Controller:
        @WebSocketEndpoint("/ws", concurrency=concurrency, timeout=SHORT if set_by == "endpoint" else None)
        async def serve(self, connection: WebSocketConnection) -> None:
            await connection.join("room")

        @Receive(Wait, timeout=SHORT if set_by == "handler" else None)
        async def wait(self, message: Wait) -> None:
            await Ping().send("room")  # staged, and dropped
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("wait")
                raise

        @Receive(Ping)
        async def ping(self) -> str:
            return "pong"

    interceptor = WebSocketInterceptor(settings=SETTINGS if set_by == "settings" else None)
    async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
        for _ in range(2):
            error = await ask(socket, Wait())
            assert (error["MESSAGE_ID"], a_code(error)) == ("jararaca.error", "timeout")
        assert cancelled == ["wait", "wait"]
        assert (await ask(socket, Ping()))["message"] == "pong"
    told = [record for record in caplog.records if "took longer than 0.02 s" in record.getMessage()]
    assert len(told) == 2
    assert "Controller.wait" in told[0].getMessage()
    assert not errors_in(caplog)


async def test_a_limit_of_its_own_may_be_longer_or_none():
    class Controller(Pinged):
        @Receive(Wait, timeout=timedelta.max)
        async def wait(self) -> str:
            await asyncio.sleep(3 * SHORT.total_seconds())
            return "waited"

    interceptor = WebSocketInterceptor(settings=SETTINGS)
    async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
        assert (await ask(socket, Wait()))["message"] == "waited"


async def test_there_is_none_where_the_settings_say_so():
    class Controller(Pinged):
        @Receive(Wait)
        async def wait(self) -> bool:
            loop: Any = asyncio.get_running_loop()
            return any("TimeLimit" in repr(timer) for timer in getattr(loop, "_scheduled", ()))

    interceptor = WebSocketInterceptor(settings=WebSocketSettings(handler_timeout=None))
    async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
        assert (await ask(socket, Wait()))["message"] is False


async def test_a_timeout_of_the_handler_s_own_is_a_failure_like_any(caplog: pytest.LogCaptureFixture):
    class Controller(Pinged):
        @Receive(Wait)
        async def wait(self) -> None:
            async with asyncio.timeout(0):
                await asyncio.sleep(1)

    async with running(Controller) as app, connect(app.asgi, "/ws") as socket:
        assert a_code(await ask(socket, Wait())) == "internal_error"
    assert len(errors_in(caplog)) == 1


async def test_fallbacks_and_dispatchers_have_the_limit_too():
    for way in ("fallback", "dispatcher"):
        done = asyncio.Event()

        async def hang(*_: Any, done: asyncio.Event = done) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                done.set()

        if way == "dispatcher":
            router = WebSocketRouter("/ws", timeout=SHORT, dispatcher=hang)
        else:
            router = WebSocketRouter("/ws", timeout=SHORT)

            @router.on_fallback
            async def fallback(connection: WebSocketConnection, raw: str, error: InvalidMessage) -> None:
                await hang()

        async with running() as app:
            app.asgi.include_router(router)
            async with connect(app.asgi, "/ws") as socket:
                await socket.send_text("x")
                async with asyncio.timeout(5):
                    await done.wait()


async def test_a_client_need_not_wait_for_a_handler_that_ignores_its_cancellation(caplog: pytest.LogCaptureFixture):
    gone_on = asyncio.Event()

    class Controller(Pinged):
        @Receive(Wait)
        async def wait(self, connection: WebSocketConnection) -> None:
            while not connection.closed.is_set():
                with suppress(asyncio.CancelledError):
                    await connection.closed.wait()
            gone_on.set()

    interceptor = WebSocketInterceptor(settings=SETTINGS)
    async with running(Controller, interceptor=interceptor) as app, connect(app.asgi, "/ws") as socket:
        await socket.send_text(json.dumps({"MESSAGE_ID": Wait.MESSAGE_ID, "message": {}, "ref": "1"}))
        assert (await socket.closed()).code == CloseCode.INTERNAL_ERROR
        await until(gone_on.is_set)
    (error,) = errors_in(caplog)
    assert "goes on after it was cancelled" in error.getMessage()


async def test_interceptors_see_the_cancellation_and_the_next_message_a_new_unit_of_work():
    class Controller(Pinged):
        @Receive(Wait)
        async def wait(self) -> None:
            await asyncio.Event().wait()

    class Sessions:
        open = 0
        ends: list[str] = []  # noqa: RUF012

        def intercept(self, app_context: Any) -> Any:
            return self

        async def __aenter__(self) -> None:
            Sessions.open += 1

        async def __aexit__(self, kind: Any, *_: Any) -> None:
            Sessions.open -= 1
            Sessions.ends.append("commit" if kind is None else kind.__name__)

    interceptor = WebSocketInterceptor(settings=SETTINGS)
    async with running(Controller, interceptor=interceptor, others=[Sessions()]) as app:
        async with connect(app.asgi, "/ws") as socket:
            Sessions.ends.clear()  # that of the endpoint
            await ask(socket, Wait())
            await ask(socket, Ping())
    assert Sessions.ends == ["CancelledError", "commit"]
    assert Sessions.open == 0


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), 5])
def test_what_can_be_no_limit_is_refused_at_once(timeout: Any):
    with pytest.raises(ConfigurationError, match="timeout"):
        Receive(Ping, timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout"):
        WebSocketEndpoint("/ws", timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout"):
        WebSocketRouter(timeout=timeout)
    with pytest.raises(ConfigurationError, match="timeout"):
        WebSocketRouter().receive(Ping, timeout=timeout)
