from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, WebSocket
from starlette.types import Message, Receive, Scope, Send

from jararaca_ws.testing import WebSocketClosed, connect, lifespan
from tests.unit.played import turns, until


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    websocket = WebSocket(scope, receive, send)
    await websocket.accept(subprotocol="x" if "x" in scope["subprotocols"] else None)
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({**message, "type": "websocket.send"})


async def closing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "first"})
    await send({"type": "websocket.close", "code": 4321, "reason": "because"})


class TestConnect:
    async def test_frames_go_both_ways(self):
        async with connect(echo, "/", subprotocols=["y", "x"]) as socket:
            assert socket.subprotocol == "x"
            await socket.send_text('{"a": 1}')
            assert await socket.receive_json() == {"a": 1}
            await socket.send_bytes(b"\xff")
            assert await socket.receive() == b"\xff"

    async def test_the_application_sees_a_scope_as_a_server_makes_it(self):
        async with connect(echo, "/a%2Cb/%C3%A9?q=%2C", headers={"X-User": "ann"}) as socket:
            websocket = WebSocket(socket.scope, lambda: None, lambda _: None)  # type: ignore[arg-type, return-value]
            assert socket.scope["path"] == "/a,b/é"
            assert socket.scope["raw_path"] == b"/a%2Cb/%C3%A9"
            assert websocket.query_params["q"] == ","
            assert websocket.headers["x-user"] == "ann"
            assert websocket.headers["host"] == "testserver"

    async def test_nothing_received_is_a_timeout(self):
        async with connect(echo, "/") as socket:
            with pytest.raises(TimeoutError):
                await socket.receive(timeout_s=0.01)

    async def test_the_close_is_told_after_the_frames_and_again_and_again(self):
        async with connect(closing, "/") as socket:
            assert await socket.receive() == "first"
            for _ in range(2):
                with pytest.raises(WebSocketClosed) as caught:
                    await socket.receive()
                assert (caught.value.code, caught.value.reason, caught.value.status) == (4321, "because", None)
            assert (await socket.closed()).code == 4321

    async def test_a_refusal_is_raised_with_its_code(self):
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.close", "code": 4507, "reason": "no"})

        with pytest.raises(WebSocketClosed) as caught:
            async with connect(refusing, "/"):
                pytest.fail("it was accepted")
        assert (caught.value.code, caught.value.reason, caught.value.status) == (4507, "no", None)

    async def test_a_refusal_is_raised_with_its_http_status(self):
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"n", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"o"})

        with pytest.raises(WebSocketClosed) as caught:
            async with connect(refusing, "/"):
                pytest.fail("it was accepted")
        assert caught.value.status == 403

    async def test_an_application_that_ends_without_closing_is_1006(self):
        async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})

        async with connect(leaving, "/") as socket:
            assert (await socket.closed()).code == 1006

    async def test_a_stalled_client_makes_the_application_wait_until_it_reads_again(self):
        written: list[int] = []

        async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            await receive()
            await receive()
            for n in range(5):
                await send({"type": "websocket.send", "text": str(n)})
                written.append(n)

        async with connect(streaming, "/") as socket:
            socket.stall()
            await socket.send_text("go")
            await turns()
            assert written == []
            socket.resume()
            assert [await socket.receive() for _ in range(5)] == ["0", "1", "2", "3", "4"]

    async def test_once_the_client_has_gone_writes_fail_stalled_or_not(self):
        failed = asyncio.Event()

        async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "text": "x"})
                    await asyncio.sleep(0)
            except OSError:
                failed.set()

        async with connect(streaming, "/") as socket:
            socket.stall()
            await socket.close(1001)
            await asyncio.wait_for(failed.wait(), 5)

    async def test_leaving_waits_until_the_application_is_done(self):
        done = False

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal done
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await turns(50)
            done = True

        before = asyncio.all_tasks()
        with pytest.raises(RuntimeError, match="on purpose"):
            async with connect(slow, "/"):
                raise RuntimeError("on purpose")
        assert done
        assert asyncio.all_tasks() == before

    async def test_an_error_that_escapes_from_the_application_is_not_hidden(self):
        """A test that only looks at the close code would pass although the application is broken."""

        async def broken(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            async with connect(broken, "/") as socket:
                assert (await socket.closed()).code == 1006


class TestLifespan:
    @staticmethod
    def application(steps: list[str], fails_at: str = "") -> FastAPI:
        @asynccontextmanager
        async def life(app: FastAPI):
            if fails_at == "startup":
                raise RuntimeError("no database")
            steps.append("up")
            yield
            if fails_at == "shutdown":
                raise RuntimeError("no farewell")
            steps.append("down")

        return FastAPI(lifespan=life)

    async def test_it_starts_and_stops(self):
        steps: list[str] = []
        before = asyncio.all_tasks()
        async with lifespan(self.application(steps)):
            assert steps == ["up"]
        assert steps == ["up", "down"]
        assert asyncio.all_tasks() == before

    @pytest.mark.parametrize(("fails_at", "problem"), [("startup", "no database"), ("shutdown", "no farewell")])
    async def test_a_failure_is_raised_with_its_reason(self, fails_at: str, problem: str):
        with pytest.raises(RuntimeError, match=rf"did not survive its {fails_at}[^$]*{problem}"):
            async with lifespan(self.application([], fails_at)):
                assert fails_at == "shutdown"

    async def test_a_body_that_fails_still_stops_the_application_as_a_server_would(self):
        steps: list[str] = []
        with pytest.raises(AssertionError, match="on purpose"):
            async with asyncio.timeout(5), lifespan(self.application(steps)):
                raise AssertionError("on purpose")
        assert steps == ["up", "down"]

    async def test_an_application_without_a_lifespan_says_so(self):
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "websocket", "no lifespan here"

        with pytest.raises(RuntimeError, match="no lifespan here"):
            async with asyncio.timeout(5), lifespan(app):
                pytest.fail("it started")

    async def test_what_it_is_told_is_what_a_server_says(self):
        heard: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for step in ("startup", "shutdown"):
                heard.append(await receive())
                await send({"type": f"lifespan.{step}.complete"})

        async with lifespan(app):
            await until(lambda: heard)
        assert heard == [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
