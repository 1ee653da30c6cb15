"""Every example of the documentation, run for what its page says of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate
from playwright.async_api import Page, async_playwright
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_to

from jararaca_ws import Microservice, WebSocketInterceptor, cli, create_http_server
from jararaca_ws.testing import InLoopWebSocket, WebSocketClosed, connect, lifespan
from tests.servers import OwnedProcess, RabbitMQServer, RedisServer, free_port
from tests.servers.process import answer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BIN = Path(sys.executable).parent
HELLO = {"username": "Ana", "content": "hello"}

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield __import__
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(EXAMPLES)):
            del sys.modules[name]


@asynccontextmanager
async def running(app: Microservice | FastAPI) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    server = create_http_server(app) if isinstance(app, Microservice) else app
    async with (
        lifespan(server),
        httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://test") as http,
    ):
        yield server, http


# --- in one process ---------------------------------------------------------------------------------------------------


async def test_health(load: Load):
    example = load("health")
    for app in (example.app, example.plain):
        example.searching.index_is_loaded = False
        async with running(app) as (_, http):
            not_ready = await http.get("/health/ready")
            assert not_ready.status_code == 503
            (search,) = [part for part in not_ready.json()["parts"] if not part["healthy"]]
            assert search == {"name": "search", "healthy": False, "reason": "the index is not loaded yet"}
            example.searching.index_is_loaded = True
            assert (await http.get("/health/ready")).status_code == 200
            assert (await http.get("/health/live")).status_code == 200


async def test_rate_limits(load: Load):
    example = load("rate_limits")
    async with running(example.app) as (app, http):
        async with connect(app, "/chat/ws") as socket:
            for number in range(3):
                wanted = {"MESSAGE_ID": "report.wanted", "message": {}, "ref": str(number)}
                await socket.send_text(json.dumps(wanted))
                answer = await socket.receive_json()
                assert (answer["MESSAGE_ID"] == "jararaca.error") == (number == 2)
            assert answer["message"]["code"] == "rate_limited"
            assert 0 < answer["message"]["retry_after_ms"] <= 1_800_000
            await socket.send_text(json.dumps({"MESSAGE_ID": "chat.posted", "message": {"text": "hello"}}))
            assert (await socket.receive_json())["message"] == {"text": "hello"}
        statuses = [(await http.get("/chat/history")).status_code for _ in range(11)]
        assert statuses == [200] * 10 + [429]


async def test_own_errors(load: Load):
    async with (
        running(load("own_errors").app) as (app, _),
        connect(app, "/auction/ws", subprotocols=["jararaca.v1"]) as ana,
    ):
        told = []
        for amount in (1001, 1):
            await ana.send_text(json.dumps({"MESSAGE_ID": "auction.bid", "message": {"amount": amount}}))
            told.append((await ana.receive_json())["message"])
        assert [one["code"] for one in told] == ["auction_over", "too_fast"]
        assert [one.get("retry_after_ms") for one in told] == [None, 2000]


def test_own_settings(load: Load, capsys: pytest.CaptureFixture[str]):
    manager = load("own_settings").app.interceptors[0].manager
    assert (manager.settings.max_rooms, manager.settings.max_recovered) == (16, 300)
    assert cli.main(["settings", "own_settings:app", "--app-dir", str(EXAMPLES)]) == 0
    printed = capsys.readouterr().out
    assert "  max_rooms = 16  (argument)\n" in printed
    assert "  write_timeout = 3  (argument)\n" in printed
    assert "  ttl = 60  (argument)\n" in printed
    assert "redis://ana:***@localhost:6379/0" in printed
    assert "secret" not in printed


async def test_status(load: Load):
    example = load("status")
    for app in (example.app, example.plain):
        async with running(app) as (_, http):
            assert (await http.get("/status")).status_code == 401
            answer = await http.get("/status", headers={"Authorization": f"Bearer {example.token}"})
            assert (answer.status_code, answer.json()["missing"]) == (200, 0)


async def test_fastapi_host(load: Load):
    async with running(load("fastapi_host").app) as (app, http):
        assert (await http.get("/health/ready")).status_code == 200
        with pytest.raises(WebSocketClosed) as refused:
            async with connect(app, "/orders/7/ws"):
                pass
        assert refused.value.status == 401
        async with connect(app, "/orders/7/ws?token=ana") as browser, connect(app, "/orders/8/ws?token=ana") as other:
            assert (await http.put("/orders/8", params={"status": "sent"})).status_code == 404
            assert (await http.put("/orders/7", params={"status": "paid"})).status_code == 200
            assert [(await browser.receive_json())["message"]["status"] for _ in range(2)] == ["paid", "packed"]
            # What the request that failed had staged is not there.
            with pytest.raises(TimeoutError):
                await other.receive(timeout_s=0)


async def test_interceptors(load: Load):
    example = load("interceptors")
    async with running(example.app) as (app, http), connect(app, "/orders/ws") as browser:
        assert (await http.post("/orders/0")).status_code == 409
        assert (await http.post("/orders/7")).status_code == 202
        # The rolled back order was not sent, and the session was committed before the message left.
        assert (await browser.receive_json())["message"] == {"number": 7}
        assert example.Session.log == ["rollback", "commit"]


async def test_the_session_commits_before_the_messages_leave(load: Load, monkeypatch: pytest.MonkeyPatch):
    example = load("interceptors")
    manager = example.app.interceptors[0].manager
    publish = manager.publish

    async def published(publications: Any) -> None:
        example.Session.log.append("flush")
        await publish(publications)

    monkeypatch.setattr(manager, "publish", published)
    async with running(example.app) as (_, http):
        await http.post("/orders/7")
    assert example.Session.log == ["commit", "flush"]


async def test_background(load: Load):
    async with running(load("background").app) as (app, http), connect(app, "/imports/ws/a") as browser:
        assert (await http.post("/imports/a")).status_code == 202
        percents = [(await browser.receive_json())["message"]["percent"] for _ in range(3)]
        assert percents == [0, 50, 100]


async def test_a_background_task_that_uses_send_is_told_what_to_do(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    example = load("background")
    monkeypatch.setattr(example.Progress, "send_now", example.Progress.send)
    async with running(example.app) as (_, http):
        await http.post("/imports/a")
        async with asyncio.timeout(10):
            await asyncio.gather(*example.background.tasks, return_exceptions=True)
    assert "UnitOfWorkOver" in caplog.text
    assert not example.background.tasks


async def test_background_tasks_end_with_the_application(load: Load):
    example = load("background")
    async with running(example.app) as (_, http):
        await http.post("/imports/a")
        [task] = example.background.tasks
    assert task.cancelled()


async def test_recovering(load: Load):
    async with running(load("recovering").app) as (app, http):
        subprotocols = ["jararaca.v1", "jararaca.recover"]

        async def come_back(browser: Any, positions: Any) -> None:
            await browser.send_text(json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": positions}}))

        async with connect(app, "/rooms/a/ws", subprotocols=subprotocols) as browser:
            await come_back(browser, {})
            await http.post("/rooms/a", params={"text": "one"})
            first = await browser.receive_json()
            assert (first["message"], first["room"], first["offset"]) == ({"text": "one"}, "a", 1)
        for text in ("two", "three"):
            assert (await http.post("/rooms/a", params={"text": text})).status_code == 202
        async with connect(app, "/rooms/a/ws", subprotocols=subprotocols) as browser:
            await come_back(browser, {"a": {"epoch": first["epoch"], "offset": 1}})
            told = await browser.receive_json()
            assert (told["MESSAGE_ID"], told["message"]["recovered"]) == ("jararaca.recovered", True)
            assert [(await browser.receive_json())["message"]["text"] for _ in range(2)] == ["two", "three"]
        assert (await http.get("/rooms/a")).json() == ["one", "two", "three"]


@pytest.mark.e2e
@pytest.mark.browser
async def test_recovering_in_a_browser(chromium_path: str, tmp_path: Path):
    port = free_port()

    def serve() -> OwnedProcess:
        return start(["jararaca-ws", "serve", "recovering:app", "--port", str(port), "--drain-window", "0"], tmp_path)

    async with chromium(chromium_path) as page:
        with serve() as server:
            await listening(server, port)
            await page.goto(f"http://127.0.0.1:{port}/docs")  # any page of the same origin
            await page.add_script_tag(content=(EXAMPLES / "recovering.js").read_text())
            await page.evaluate(
                """url => {
                    window.shown = []; window.reloads = 0; window.sockets = [];
                    const Native = WebSocket;
                    window.WebSocket = function (...given) {
                        const socket = new Native(...given);
                        sockets.push(socket);
                        return socket;
                    };
                    follow(url, "lobby", ({ text }) => shown.push(text), () => reloads++);
                }""",
                f"ws://127.0.0.1:{port}/rooms/lobby/ws",
            )
            await page.wait_for_function("sockets.length === 1 && sockets[0].readyState === 1")
            assert await post(port, "/rooms/lobby", params={"text": "one"}) == 202
            await page.wait_for_function("shown.length === 1")
            await page.evaluate("sockets[0].close(4000)")
            assert await post(port, "/rooms/lobby", params={"text": "two"}) == 202
            await page.wait_for_function("sockets.length > 1 && shown.length === 2")
            assert await page.evaluate("[shown, reloads]") == [["one", "two"], 0]
        with serve() as server:  # its memory was lost: the page is told, and goes on
            await listening(server, port)
            await page.wait_for_function("reloads === 1", timeout=20_000)
            assert await post(port, "/rooms/lobby", params={"text": "three"}) == 202
            await page.wait_for_function("shown.length === 3")


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield await browser.new_page()
        await browser.close()


@pytest.mark.e2e
@pytest.mark.browser
async def test_room_names_in_a_browser(chromium_path: str):
    vectors = json.loads((EXAMPLES.parents[1] / "tests" / "vectors" / "rooms.json").read_text())["name"]
    assert vectors
    async with chromium(chromium_path) as page:
        await page.add_script_tag(content=(EXAMPLES / "room_names.js").read_text())
        for vector in vectors:
            written = {field: await page.evaluate("inName", value) for field, value in vector["values"].items()}
            assert vector["pattern"].format(**written) == vector["name"]


async def test_receiving(load: Load):
    example = load("receiving")
    move = {"MESSAGE_ID": "game.move", "message": {"square": 4}, "ref": "1"}
    moved = {"square": 4, "number": 1}
    async with running(example.app) as (app, _), connect(app, "/games/g") as ana, connect(app, "/games/g") as bo:
        await ana.send_text(json.dumps(move))
        assert await bo.receive_json() == {"MESSAGE_ID": "game.moved", "message": moved}
        assert await ana.receive_json() == {"MESSAGE_ID": "game.moved", "message": moved}
        assert await ana.receive_json() == {"MESSAGE_ID": "jararaca.reply", "ref": "1", "message": moved}
        await bo.send_text(json.dumps(move))
        error = await bo.receive_json()
        assert (error["MESSAGE_ID"], error["ref"]) == ("jararaca.error", "1")
        assert error["message"]["code"] == "bad_request"


async def test_openapi(load: Load):
    example = load("openapi")
    async with running(example.app) as (app, http):
        document = (await http.get("/openapi.json")).json()
        validate(document)
        handshake, move = document["paths"].values()
        assert list(document["paths"]) == ["/games/{number} (WebSocket)", "/games/{number}: match.move"]
        assert list(handshake["get"]["callbacks"]) == ["match.moved", "match.ended"]
        assert list(move["post"]["callbacks"]) == ["match.ended"]
        async with connect(app, "/games/1") as socket:
            await socket.send_text('{"MESSAGE_ID": "match.move", "message": {"square": 9}, "ref": "1"}')
            assert [(await socket.receive_json())["message"] for _ in range(3)] == [{"square": 9}, {}, {"points": 9}]


async def test_receiving_router(load: Load):
    example = load("receiving_router")
    async with running(example.app) as (app, _):
        async with connect(app, "/api/halls/a?token=no") as refused:
            assert (await refused.closed()).code == 4507
        async with connect(app, "/api/halls/a?token=open%20sesame") as socket:
            await socket.send_text('{"MESSAGE_ID": "hall.said", "message": {"text": "hello"}}')
            await socket.send_text("hello")
            assert [(await socket.receive_json())["message"]["text"] for _ in range(2)] == [
                "hello",
                "this is bad_request",
            ]


async def test_inbound(load: Load):
    draw: dict[str, Any] = {"MESSAGE_ID": "board.draw", "message": {"x": 1, "y": 2}}
    clear: dict[str, Any] = {"MESSAGE_ID": "board.clear", "message": {}}
    async with (
        running(load("inbound").app) as (app, _),
        connect(app, "/boards/a?name=Ana", subprotocols=["jararaca.v1"]) as one,
        connect(app, "/boards/a?name=Rui") as two,
    ):
        assert (one.subprotocol, two.subprotocol) == ("jararaca.v1", None)
        for frame in (draw, clear):
            await one.send_text(json.dumps(frame))
        assert [await one.receive_json(), await one.receive_json()] == [draw, clear]
        assert await two.receive_json() == draw
        for browser in (one, two):
            for bad in ("{", '{"MESSAGE_ID": "no.such"}', '{"MESSAGE_ID": "board.draw", "message": {"x": 1}}'):
                await browser.send_text(bad)
        errors = [await one.receive_json() for _ in range(3)]
        assert [error["MESSAGE_ID"] for error in errors] == ["jararaca.error"] * 3
        assert [error["message"]["code"] for error in errors] == ["bad_request", "unknown_type", "bad_request"]
        assert (await one.closed()).code == (await two.closed()).code == 4501


async def test_calls(load: Load):
    async def question(browser: InLoopWebSocket, amount: int) -> str:
        frame = await browser.receive_json()
        assert (frame["MESSAGE_ID"], frame["message"]) == ("payments.approve", {"amount": amount})
        return str(frame["ref"])

    async def answer(browser: InLoopWebSocket, kind: str, ref: str, message: Any) -> None:
        await browser.send_text(json.dumps({"MESSAGE_ID": f"jararaca.{kind}", "ref": ref, "message": message}))

    async with (
        running(load("calls").app) as (app, http),
        connect(app, "/payments/ws/ana") as ana,
        connect(app, "/payments/ws/rui") as rui,
    ):
        for browser in (ana, rui):
            await answer(browser, "reply", await question(browser, 0), {"approved": True})
        for kind, message, status, body in (
            ("reply", {"approved": False}, 200, False),
            ("error", {"code": "busy"}, 502, {"detail": "busy"}),
        ):
            paying = asyncio.create_task(http.post("/payments/ana", params={"amount": 7}))
            await answer(ana, kind, await question(ana, 7), message)
            response = await paying
            assert (response.status_code, response.json()) == (status, body)
        await ana.send_text('{"MESSAGE_ID": "payments.typing", "message": {}}')
        assert (await rui.receive_json())["message"] == {"who": "ana"}


async def test_typed_rooms(load: Load):
    async def asked(kind: str, **message: Any) -> dict[str, Any]:
        await ana.send_text(json.dumps({"MESSAGE_ID": f"jararaca.{kind}", "ref": "1", "message": message}))
        answer = await ana.receive_json()
        assert answer["ref"] == "1"
        return {answer["MESSAGE_ID"]: answer["message"]}

    shipped = {"MESSAGE_ID": "order.shipped", "message": {"parcel": "JJ-1"}}
    async with running(load("typed_rooms").app) as (app, http):
        async with connect(app, "/orders/ws/42?name=Rui") as rui:
            assert (await rui.closed()).code == 4507
        async with connect(app, "/orders/ws/43?name=Rui") as rui, connect(app, "/orders/ws?name=Ana") as ana:
            joined = {"room": "order-42", "epoch": "", "offset": 0}
            assert await asked("join", rooms=["order-42"]) == {"jararaca.joined": {"rooms": [joined]}}
            for order in (42, 43):
                await http.post(f"/orders/{order}/ship")
            assert await ana.receive_json() == await rui.receive_json() == shipped
            refused = await asked("join", rooms=["order-43"])
            assert refused["jararaca.error"]["code"] == "permission_denied"
            typing = {"MESSAGE_ID": "order.typing", "message": {"name": "Ana"}}
            await ana.send_text(
                json.dumps({"MESSAGE_ID": "jararaca.send", "ref": "2", "message": {"room": "order-42", **typing}})
            )
            answers = [await ana.receive_json(), await ana.receive_json()]
            assert {"MESSAGE_ID": "jararaca.sent", "ref": "2", "message": {"room": "order-42"}} in answers
            assert typing in answers
            assert await asked("leave", rooms=["order-42"]) == {"jararaca.left": {"rooms": ["order-42"]}}


async def test_presence(load: Load):
    async def told(browser: InLoopWebSocket) -> tuple[str, int, list[str], list[str]]:
        message = (await browser.receive_json())["message"]
        return message["kind"], message["count"], [one["user_id"] for one in message["joined"]], message["left"]

    async with running(load("presence").app) as (app, http):
        async with connect(app, "/documents/7?name=Ana", subprotocols=["jararaca.v1"]) as ana:
            assert await told(ana) == ("state", 1, ["Ana"], [])
            async with connect(app, "/documents/7?name=Rui") as rui:
                assert await told(ana) == ("diff", 2, ["Rui"], [])
                assert sorted((await http.get("/documents/7/readers")).json()) == ["Ana", "Rui"]
                assert rui.subprotocol is None


async def test_bus_handlers(load: Load):
    example = load("bus_handlers")
    async with running(example.app) as (_, http):
        assert (await http.post("/invoices/5/paid")).status_code == 202
        assert (await http.post("/invoices/-1/paid")).status_code == 202
        await example.bus.join()
        assert example.Ledger.booked == {5, -1}
        assert [receipt.split()[0] for receipt in example.Receipts.sent] == ["5"]
        [letter] = example.bus.dead_letters
        assert letter.attempt.body == b'{"invoice":-1}'
        assert (letter.dead.reason, letter.dead.error_type, letter.dead.attempts) == (
            "attempts_exhausted",
            "ValueError",
            3,
        )


async def test_own_backend(load: Load):
    hub = load("own_backend").Hub()
    controllers = load("interceptors").app.controllers

    def instance() -> Microservice:
        backend = load("own_backend").HubBackend(hub)
        return Microservice(controllers=controllers, interceptors=[WebSocketInterceptor(backend=backend)])

    async with (
        running(instance()) as (one, http),
        running(instance()) as (two, _),
        connect(one, "/orders/ws") as near,
        connect(two, "/orders/ws") as far,
    ):
        assert (await http.post("/orders/7")).status_code == 202
        assert [(await browser.receive_json())["message"] for browser in (near, far)] == [{"number": 7}] * 2
    assert not hub.instances


async def test_injection(load: Load):
    async with running(load("injection").app) as (_, http):
        assert (await http.patch("/tasks/1", params={"title": "done"})).status_code == 204
        shown = await http.get("/tasks/1", headers={"Accept-Language": "pt"})
        assert shown.json() == {"title": "done", "language": "pt"}
        assert (await http.patch("/tasks/9", params={"title": "x"})).status_code == 404
        document = (await http.get("/openapi.json")).json()
        assert document["info"] == {"title": "tasks", "version": "1.2.0"}
        assert document["paths"]["/tasks/{number}"]["get"]["tags"] == ["tasks"]


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["testing_chat.py", "testing_own_backend.py"])
def test_the_tests_among_the_examples_pass_where_nothing_is_configured(name: str, tmp_path: Path):
    run_tests(name, tmp_path)


@pytest.mark.e2e
@pytest.mark.redis
def test_testing_faults(tmp_path: Path, redis_server: RedisServer):
    run_tests("testing_faults.py", tmp_path, {"REDIS_PORT": str(redis_server.port)})


def run_tests(name: str, directory: Path, environment: Mapping[str, str] | None = None) -> None:
    for source in EXAMPLES.glob("*.py"):
        shutil.copy(source, directory)
    ran = subprocess.run(
        [BIN / "pytest", "-o", "asyncio_mode=auto", name],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


# --- with the commands that the pages print ---------------------------------------------------------------------------


def start(argv: list[str], directory: Path, environment: Mapping[str, str] | None = None) -> OwnedProcess:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
    return OwnedProcess([BIN / argv[0], *argv[1:]], log=directory / f"{free_port()}.log", env=env, cwd=EXAMPLES)


async def listening(process: OwnedProcess, port: int) -> None:
    question = b"GET /openapi.json HTTP/1.0\r\n\r\n"
    await asyncio.to_thread(process.wait_until, lambda: b"200 OK" in answer(port, question))


async def said(browser: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        return json.loads(await browser.recv())["message"]["content"]


async def post(port: int, path: str, **options: Any) -> int:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        return (await http.post(path, **options)).status_code


@pytest.mark.e2e
@pytest.mark.parametrize(
    "argv",
    [
        ["jararaca-ws", "serve", "chat:app", "--port"],
        ["jararaca-ws", "serve", "chat_asgi:app", "--port"],
        [
            *("uvicorn", "chat_asgi:app", "--timeout-graceful-shutdown", "10", "--ws-max-size", "65536"),
            *("--ws-per-message-deflate", "false", "--port"),
        ],
    ],
    ids=lambda argv: " ".join(argv[:3]),
)
async def test_chat(argv: list[str], tmp_path: Path):
    port = free_port()
    with start([*argv, str(port)], tmp_path) as server:
        await listening(server, port)
        async with connect_to(f"ws://127.0.0.1:{port}/chat/ws/lobby") as browser:
            assert await post(port, "/chat/lobby/message", json=HELLO) == 202
            assert await said(browser) == "hello"


@pytest.mark.e2e
async def test_chat_bus(tmp_path: Path):
    port = free_port()
    with start(["jararaca-ws", "serve", "chat_bus:app", "--port", str(port)], tmp_path) as server:
        await listening(server, port)
        async with connect_to(f"ws://127.0.0.1:{port}/chat/ws/lobby") as browser:
            assert await post(port, "/reports/lobby") == 202
            assert await said(browser) == "the report is ready"


@pytest.mark.e2e
@pytest.mark.redis
@pytest.mark.rabbitmq
async def test_chat_distributed(tmp_path: Path, redis_server: RedisServer, rabbitmq_server: RabbitMQServer):
    rabbitmq_server.start()
    environment = {"REDIS_URL": redis_server.url, "AMQP_URL": rabbitmq_server.url}
    one, two = free_port(), free_port()
    serve = ["jararaca-ws", "serve", "chat_distributed:app", "--port"]
    with (
        start(["jararaca-ws", "worker", "chat_distributed:app"], tmp_path, environment) as worker,
        start([*serve, str(one)], tmp_path, environment) as first,
        start([*serve, str(two)], tmp_path, environment) as second,
    ):
        await listening(first, one)
        await listening(second, two)
        await asyncio.to_thread(worker.wait_until, lambda: "chat consumes with" in worker.output())
        async with connect_to(f"ws://127.0.0.1:{two}/chat/ws/lobby") as browser:
            assert await post(one, "/chat/lobby/message", json=HELLO) == 202
            assert await said(browser) == "hello"
            assert await post(one, "/reports/lobby") == 202
            assert await said(browser) == "the report is ready"
            with start(["python", "chat_script.py", "lobby"], tmp_path, environment) as script:
                assert await asyncio.to_thread(script.wait) == 0, script.output()
            assert [await said(browser), await said(browser)] == ["hello", "the report is ready"]


async def test_authentication(load: Load):
    example = load("authentication")

    def bearer(**claims: Any) -> dict[str, str]:
        known = {"sub": "ana", "aud": "chat", "exp": datetime.now(UTC) + timedelta(minutes=5), **claims}
        return {"Authorization": f"Bearer {jwt.encode(known, example.SECRET, 'HS256')}"}

    async def status(path: str, **options: Any) -> int | None:
        try:
            async with connect(app, path, **options):
                return None
        except WebSocketClosed as refused:
            return refused.status

    async with running(example.app) as (app, http):
        ours = {"Origin": "https://app.example.com"}
        async with connect(app, "/ws", headers={**bearer(jti="t-1"), **ours}) as browser:
            assert (await browser.receive_json())["message"] == {"text": "hello ana"}
            assert (await http.post("/sign-out", headers=bearer(jti="t-1"))).status_code == 200
            assert (await browser.closed()).code == 4500
        assert await status("/ws", headers=bearer(jti="t-1")) == 401
        assert await status("/ws", headers=bearer(aud="mail")) == 401
        for headers in ({**bearer(), "Origin": "https://evil.io"}, {"Origin": "null"}):
            with pytest.raises(WebSocketClosed):
                async with connect(app, "/ws", headers=headers):
                    pass
        cookie = {"Cookie": "session=s-1"}
        assert await status("/cookie", headers={**cookie, **ours}) is None
        with pytest.raises(WebSocketClosed):
            async with connect(app, "/cookie", headers=cookie):
                pass
        ticket = (await http.post("/tickets", headers=bearer())).json()
        assert await status(f"/ticket?ticket={ticket}") is None
        assert await status(f"/ticket?ticket={ticket}") == 401
