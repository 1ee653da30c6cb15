from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from threading import Thread, Timer
from typing import Any

import pytest
import uvicorn

from jararaca_ws.cli import main, worker
from tests.servers import OwnedProcess, free_port
from tests.servers.process import answer

# An application whose interceptor does {start} when it starts and {stop} when it stops.
LIVING = """
    import asyncio, signal
    from contextlib import asynccontextmanager
    from jararaca_ws.errors import BackendUnavailable, ConfigurationError
    from jararaca_ws.microservice import Get, Microservice, RestController, create_http_server

    class Living:
        @asynccontextmanager
        async def intercept(self, app_context):
            yield

        @asynccontextmanager
        async def lifecycle(self, app, container):
            {start}
            yield
            {stop}

    @RestController("/")
    class Hello:
        @Get("/hello")
        async def hello(self) -> str:
            return "hello"

    service = Microservice(controllers=[Hello], interceptors=[Living()])
"""
STOP_SOON = "asyncio.get_running_loop().call_later(0.2, signal.raise_signal, signal.SIGTERM)"

COMMAND = str(Path(sys.executable).with_name("jararaca-ws"))
Target = Callable[..., list[str]]
_numbers = itertools.count()


def living(start: str = "...", stop: str = "...") -> str:
    return LIVING.format(start=start, stop=stop)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Write a module, and give what names it on the command line."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)

    def write(code: str, attribute: str = "service") -> list[str]:
        name = f"app_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(dedent(code))
        return [f"{name}:{attribute}", "--app-dir", str(tmp_path)]

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("app_"):
            del sys.modules[name]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, without uvicorn's log, and that it is one line and no traceback."""
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("jararaca-ws: ")]
    return line


def serve(*words: str) -> int:
    # uvloop swallows what the time limit of a test raises: a server that wrongly runs on is asked to stop.
    watchdog = Timer(20, os.kill, (os.getpid(), signal.SIGTERM))
    watchdog.start()
    try:
        return main(["serve", "--port", str(free_port()), *words])
    finally:
        watchdog.cancel()


# Arguments


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["worker", "--help"]])
def test_help_explains_the_exit_codes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "4  something that it needs at start-up cannot be had" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "COMMAND"),
        (["serve"], "module:app"),
        (["serve", "a:b", "--port", "http"], "'http' is not a whole number from 0 to 65535"),
        (["serve", "a:b", "--port", "65536"], "'65536' is not a whole number from 0 to 65535"),
        (["serve", "a:b", "--graceful-timeout", "0"], "'0' is not a whole number of at least 1"),
        (["worker", "a:b", "--grace", "-1"], "'-1' is not a whole number of at least 0"),
        (["worker", "a:b", "--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_wrong_arguments(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


# What module:app names


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("word", ["server", ":app", "server:"])
def test_a_target_of_another_form(command: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, word]) == 2
    assert f"'{word}' is not of the form module:attribute, for example server:app" in one_line(capsys)


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module"])
def test_no_such_module(module: str, tmp_path: Path, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"{module}:app", "--app-dir", str(tmp_path)]) == 2
    assert f"no module named '{module.partition('.')[0]}' in {tmp_path}: see --app-dir" in one_line(capsys)


def test_no_such_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "server:app", "--app-dir", "/no/such"]) == 2
    assert "--app-dir /no/such is not a directory" in one_line(capsys)


@pytest.mark.parametrize("attribute", ["servcie", "qqq"])
def test_no_such_attribute_names_what_could_be_meant(
    attribute: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(*target(living(), attribute)) == 2
    assert one_line(capsys).endswith(f"has no attribute '{attribute}': did you mean service?")


def test_no_such_attribute_and_no_application_at_all(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(*target("value = 1", "qqq")) == 2
    assert one_line(capsys).endswith("has no attribute 'qqq'")


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize(
    ("attribute", "what"), [("number", "of type int"), ("Microservice", "a class, Microservice"), ("make", "of type")]
)
def test_not_an_application(
    command: str, attribute: str, what: str, target: Target, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from jararaca_ws.microservice import Microservice\nnumber = 1\ndef make(): return Microservice()\n"
    assert main([command, *target(code, attribute)]) == 2
    line = one_line(capsys)
    assert f":{attribute} is {what}" in line
    assert "give a Microservice, or a FastAPI application" in line


def test_a_module_that_misses_an_import_of_its_own_is_not_a_missing_module(target: Target) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        serve(*target("import no_such_dependency"))


def test_an_error_inside_the_module_keeps_its_traceback(target: Target) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        serve(*target("service = 1 / 0"))
    assert Path(raised.traceback[-1].path).name.startswith("app_")


# Refused at start-up


def test_a_refused_configuration_in_the_module(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    code = "from jararaca_ws.microservice import Microservice\nservice = Microservice(controllers=[1])"
    assert serve(*target(code)) == 3
    assert "1" in one_line(capsys)


def test_a_refused_configuration_at_start_up(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(*target(living(start="raise ConfigurationError('two of a kind', 'remove\\none')"))) == 3
    assert one_line(capsys) == "jararaca-ws: two of a kind: remove one"


def test_f18_redis_cannot_be_reached(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(*target(living(start="raise BackendUnavailable('connection refused')"))) == 4
    assert one_line(capsys) == "jararaca-ws: the WebSocket backend is unavailable: connection refused"


def test_a_bug_in_the_start_up_keeps_its_traceback(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(*target(living(start="1 / 0"))) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_application_that_raises_without_a_word(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
        from jararaca_ws.errors import BackendUnavailable

        async def service(scope, receive, send):
            raise BackendUnavailable("connection refused")
    """
    assert serve(*target(code)) == 4
    assert one_line(capsys).endswith("connection refused")


def test_a_taken_port(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        # It is refused before anything is started.
        assert serve(*target(living(start="1 / 0")), "--port", str(port)) == 4
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in one_line(capsys)


def test_a_port_that_is_taken_while_the_application_starts(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    start = f"import socket; self.socket = socket.create_server(('127.0.0.1', {port}))"
    assert serve(*target(living(start, stop="self.socket.close()")), "--port", str(port)) == 1
    assert "address already in use" in capsys.readouterr().err


def test_a_host_that_is_not_ours(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve(*target(living()), "--host", "no-such-host.invalid") == 4
    assert "cannot listen on no-such-host.invalid" in one_line(capsys)


@pytest.mark.parametrize("module", ["uvicorn", "websockets"])
def test_a_missing_extra(
    module: str, target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert serve(*target(living())) == 2
    assert one_line(capsys) == (
        f'jararaca-ws: serving takes {module}, which is not installed: pip install "jararaca-ws[server]"'
    )


# serve

HELLO = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def get_hello_and_stop(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if answer(port, HELLO).startswith(b"HTTP/1.1 200 OK"):
            return os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["service", "create_http_server(service)", "around(create_http_server(service))"])
def test_served_until_sigterm(kind: str, target: Target) -> None:
    code = dedent(living()) + dedent(f"""
        def around(app):
            async def middleware(scope, receive, send):
                await app(scope, receive, send)
            return middleware

        app = {kind}
    """)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    port = free_port()
    browser = Thread(target=get_hello_and_stop, args=[port], daemon=True)
    browser.start()
    assert serve(*target(code, "app"), "--port", str(port)) == 0
    browser.join()
    assert handlers == {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}


def test_a_stop_that_fails_is_a_crash(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    stop = "raise BackendUnavailable('gone')"
    assert serve(*target(living(start=STOP_SOON, stop=stop))) == 1
    assert "BackendUnavailable" in capsys.readouterr().err


def test_what_uvicorn_is_told(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[uvicorn.Config] = []

    def run(server: uvicorn.Server) -> None:
        configs.append(server.config)
        server.started = True

    monkeypatch.setattr(uvicorn.Server, "run", run)
    words = target(living())
    assert serve(*words) == 0
    assert (
        serve(
            *words,
            "--graceful-timeout",
            "3",
            "--drain-window",
            "0",
            "--ws-max-size",
            "9",
            "--ws-per-message-deflate",
            "--host",
            "::1",
            "--log-level",
            "error",
        )
        == 0
    )

    first, second = configs
    assert (first.host, first.timeout_graceful_shutdown, first.ws_max_size) == ("127.0.0.1", 10, 65536)
    assert (first.ws_per_message_deflate, second.ws_per_message_deflate) == (False, True)
    assert (second.host, second.timeout_graceful_shutdown, second.ws_max_size) == ("::1", 3, 9)
    assert second.log_level == "error"


@pytest.mark.parametrize("made", ["service", "app"])
def test_a_message_is_as_long_as_the_application_allows(
    made: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[uvicorn.Config] = []

    def run(server: uvicorn.Server) -> None:
        configs.append(server.config)
        server.started = True

    monkeypatch.setattr(uvicorn.Server, "run", run)
    code = """
        from jararaca_ws import Microservice, WebSocketInterceptor, WebSocketSettings, create_http_server

        websockets = WebSocketInterceptor(settings=WebSocketSettings(max_message_bytes=200_000))
        service = Microservice(interceptors=[websockets])
        app = create_http_server(service)
    """
    assert serve(*target(code, made)) == 0
    assert serve(*target(code, made), "--ws-max-size", "9") == 0
    assert [config.ws_max_size for config in configs] == [200_000, 9]


@pytest.mark.e2e
@pytest.mark.parametrize("stop", [OwnedProcess.terminate, OwnedProcess.interrupt])
def test_the_command_serves_and_ends_with_0(
    stop: Callable[[OwnedProcess], object], target: Target, tmp_path: Path
) -> None:
    port = free_port()
    argv = [COMMAND, "serve", *target(living()), "--port", str(port)]
    process = OwnedProcess(argv, log=tmp_path / "log")
    assert process.wait_until(lambda: answer(port, HELLO)).startswith(b"HTTP/1.1 200 OK")

    stop(process)
    assert process.wait() == 0, process.output()
    assert "Traceback" not in process.output()


@pytest.mark.e2e
def test_the_command_shows_the_traceback_of_the_users_own_error(target: Target) -> None:
    argv = [COMMAND, "worker", *target("service = 1 / 0")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


# worker


class Working:
    """In the place of the real worker: waits for the stop that a signal asks for."""

    made: Any = None

    def __init__(self, microservice: object, *, grace: timedelta) -> None:
        self.microservice = microservice
        self.grace = grace
        self.stopped = False
        type(self).made = self

    async def run(self, stop: asyncio.Event) -> None:
        signal.raise_signal(signal.SIGTERM)
        await stop.wait()
        self.stopped = True


@pytest.mark.parametrize("attribute", ["service", "app"])
def test_worked_until_sigterm(attribute: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MessageBusWorker", Working)
    words = target(dedent(living()) + "app = create_http_server(service)\n", attribute)
    assert main(["worker", *words, "--grace", "7"]) == 0

    assert Working.made.stopped
    assert Working.made.grace == timedelta(seconds=7)
    assert Working.made.microservice is sys.modules[words[0].partition(":")[0]].service


def test_a_second_ctrl_c_does_not_wait(
    target: Target, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Busy(Working):
        async def run(self, stop: asyncio.Event) -> None:
            signal.raise_signal(signal.SIGINT)
            await stop.wait()
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    monkeypatch.setattr(worker, "MessageBusWorker", Busy)
    assert main(["worker", *target(living())]) == 1
    assert one_line(capsys) == "jararaca-ws: interrupted before everything was stopped in order"


def test_a_worker_with_nothing_to_do_is_refused(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", *target(living())]) == 3
    assert "has no message handlers" in one_line(capsys)


def test_the_broker_cannot_be_reached(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"amqp://guest:s3cret@127.0.0.1:{free_port()}/"
    code = f"""
        from jararaca_ws.interceptors.message_bus import MessageBusInterceptor
        from jararaca_ws.messagebus.controllers import MessageBusController, MessageHandler
        from jararaca_ws.messagebus.message import Message
        from jararaca_ws.messagebus.rabbitmq import RabbitMQMessageBus
        from jararaca_ws.microservice import Microservice

        class Noted(Message):
            MESSAGE_TOPIC = "noted"

        @MessageBusController()
        class Notes:
            @MessageHandler(Noted)
            async def note(self, message: Noted) -> None: ...

        bus = RabbitMQMessageBus("{url}")
        service = Microservice(controllers=[Notes], interceptors=[MessageBusInterceptor(bus=bus)])
    """
    assert main(["worker", *target(code)]) == 4
    line = one_line(capsys)
    assert "the message broker is unavailable" in line
    assert "s3cret" not in line
