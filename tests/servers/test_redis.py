from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.servers.process import answer

pytestmark = pytest.mark.redis


def ask(server: RedisServer, command: str) -> bytes:
    return answer(server.port, command.encode() + b"\r\n")


def test_it_comes_back_empty_on_its_port(redis_server: RedisServer) -> None:
    port = redis_server.port
    assert ask(redis_server, "SET a 1") == b"+OK\r\n"

    redis_server.restart()
    assert redis_server.port == port
    assert ask(redis_server, "GET a") == b"$-1\r\n"


def test_appendonly_keeps_the_data_through_a_kill(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "own", appendonly=True)
    server.start()
    assert ask(server, "SET a 1") == b"+OK\r\n"

    server.kill()
    assert ask(server, "GET a") == b""
    server.start()
    assert ask(server, "GET a") == b"$1\r\n1\r\n"
    server.stop()
    server.stop()


def test_paused_it_is_silent_and_then_answers(redis_server: RedisServer) -> None:
    redis_server.pause()
    assert ask(redis_server, "PING") == b""
    redis_server.resume()
    assert ask(redis_server, "PING") == b"+PONG\r\n"
