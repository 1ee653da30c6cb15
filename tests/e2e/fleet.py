"""The chat example as it runs in production: instances and workers, each a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.servers import OwnedProcess, RabbitMQServer, RedisServer, free_port
from tests.servers.process import answer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "chat"
COMMAND = (Path(sys.executable).with_name("jararaca-ws"),)


def environment(redis: RedisServer | None, rabbitmq: RabbitMQServer | None) -> Mapping[str, str]:
    return {
        **os.environ,
        "CHAT_REDIS_URL": redis.url if redis else "",
        "CHAT_AMQP_URL": rabbitmq.url if rabbitmq else "",
        "PYTHONUNBUFFERED": "1",
    }


class Instance:
    """`jararaca-ws serve` of the chat example."""

    def __init__(
        self,
        directory: Path,
        redis: RedisServer | None = None,
        rabbitmq: RabbitMQServer | None = None,
        port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.process = OwnedProcess(
            [*COMMAND, "serve", "--app-dir", EXAMPLE, "server:app", "--port", str(self.port), *options],
            log=directory / f"serve-{self.port}.log",
            env=environment(redis, rabbitmq),
        )

    def wait_until_up(self) -> Instance:
        self.process.wait_until(lambda: b"200 OK" in answer(self.port, b"GET /info HTTP/1.0\r\n\r\n"))
        return self

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ws(self, room: str) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/{room}"


class PlainUvicorn:
    """A plain `uvicorn` of the application in drained_app.py, without anything of ours around it."""

    def __init__(self, directory: Path, *options: str, drain_window_s: int) -> None:
        self.port = free_port()
        self.process = OwnedProcess(
            [
                *(Path(sys.executable).with_name("uvicorn"), "--app-dir", str(ROOT), "--port", str(self.port)),
                *("--ws", "websockets-sansio", *options, "tests.e2e.drained_app:app"),
            ],
            log=directory / f"uvicorn-{self.port}.log",
            env={**os.environ, "JARARACA_WS_DRAIN_WINDOW": str(drain_window_s), "PYTHONUNBUFFERED": "1"},
        )
        self.process.wait_until(lambda: b"200 OK" in answer(self.port, b"GET /info HTTP/1.0\r\n\r\n"))

    def waiting_bytes(self) -> list[int]:
        """For each connection of the instance that answers: what waits for it."""
        waiting: list[int] = httpx.get(f"http://127.0.0.1:{self.port}/info").json()
        return waiting

    def ws(self, room: str) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/{room}"


def worker(directory: Path, redis: RedisServer, rabbitmq: RabbitMQServer) -> OwnedProcess:
    """`jararaca-ws worker` of the chat example."""
    log = directory / f"worker-{free_port()}.log"
    return OwnedProcess(
        [*COMMAND, "worker", "--app-dir", EXAMPLE, "server:app"], log=log, env=environment(redis, rabbitmq)
    )


PUBLISH = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from server import Waved
from jararaca_ws import RabbitMQMessageBus, provide_bus

async def main():
    bus = RabbitMQMessageBus(sys.argv[2])
    await bus.start()
    with provide_bus(bus):
        await Waved(room=sys.argv[3], name=sys.argv[4]).publish()
    await bus.stop()

asyncio.run(main())
"""


def publisher(directory: Path, rabbitmq: RabbitMQServer, room: str, name: str) -> OwnedProcess:
    """A third process that puts one message on RabbitMQ and ends."""
    return OwnedProcess(
        [sys.executable, "-c", PUBLISH, EXAMPLE, rabbitmq.url, room, name],
        log=directory / "publisher.log",
        env=environment(None, None),
    )
