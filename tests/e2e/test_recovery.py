"""Clients that lose their socket, their instance, or whose instance loses Redis: processes and servers are real."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.e2e.fleet import COMMAND
from tests.servers import OwnedProcess, RedisServer, free_port
from tests.servers.process import answer

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

OFFERED = [Subprotocol("jararaca.v1"), Subprotocol("jararaca.recover")]


class Instance:
    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.port = free_port()
        self.process = OwnedProcess(
            [*COMMAND, "serve", "--app-dir", Path(__file__).parent, "recovering_app:app", "--port", str(self.port)],
            log=directory / f"serve-{self.port}.log",
            env={**os.environ, "REDIS_URL": redis.url, "PYTHONUNBUFFERED": "1"},
        )

    async def up(self) -> None:
        question = b"GET /info HTTP/1.0\r\n\r\n"
        await asyncio.to_thread(self.process.wait_until, lambda: b"200 OK" in answer(self.port, question))

    async def send(self, room: str, first: int, last: int) -> None:
        async with httpx.AsyncClient(timeout=20) as http:
            sent = await http.post(f"http://127.0.0.1:{self.port}/{room}", params={"first": first, "last": last})
            assert sent.status_code == 202, sent.text

    async def get(self, path: str) -> Any:
        async with httpx.AsyncClient(timeout=20) as http:
            return (await http.get(f"http://127.0.0.1:{self.port}{path}")).json()


class Client:
    """A client as the documentation has it, of one room.

    Attributes:
        got: the numbers of the messages that came, over all its sockets.
        answers: the `jararaca.recovered` that came.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self.got: list[int] = []
        self.answers: list[bool] = []
        self.other: list[str] = []
        self.position: dict[str, Any] | None = None
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def connected(self, instance: Instance) -> AsyncIterator[ClientConnection]:
        async with connect(f"ws://127.0.0.1:{instance.port}/ws/{self.room}", subprotocols=OFFERED) as socket:
            rooms = {} if self.position is None else {self.room: self.position}
            await socket.send(json.dumps({"MESSAGE_ID": "jararaca.recover", "message": {"rooms": rooms}}))
            reading = asyncio.create_task(self._read(socket))
            try:
                yield socket
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                self._take(json.loads(frame))
        except ConnectionClosed:
            pass

    def _take(self, frame: dict[str, Any]) -> None:
        if "offset" in frame:
            self.got.append(frame["message"]["n"])
            self.position = {"epoch": frame["epoch"], "offset": frame["offset"]}
        elif frame["MESSAGE_ID"] == "jararaca.recovered":
            self.answers.append(frame["message"]["recovered"])
        else:
            self.other.append(frame["MESSAGE_ID"])
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.got) < count:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def fleet(directory: Path, redis: RedisServer) -> AsyncIterator[tuple[Instance, Instance]]:
    async with AsyncExitStack() as stack:
        instances = []
        for _ in range(2):
            instances.append(Instance(directory, redis))
            stack.callback(instances[-1].process.terminate)
        for instance in instances:
            await instance.up()
        yield instances[0], instances[1]


async def test_a_client_recovers_on_the_other_instance_what_it_missed(tmp_path: Path, redis_server: RedisServer):
    async with fleet(tmp_path, redis_server) as (one, two):
        client = Client("a")
        async with client.connected(one):
            await two.send("a", 1, 10)
            await client.until(10)
        await one.send("a", 11, 60)
        sending = asyncio.create_task(one.send("a", 61, 160))
        async with client.connected(two):
            await sending
            await client.until(160)
        assert client.got == list(range(1, 161))
        assert client.answers == [True]
        assert await two.get("/a/history") == list(range(1, 161))


async def test_f15_clients_of_an_instance_that_was_killed_resume_elsewhere_without_loss(
    tmp_path: Path, redis_server: RedisServer
):
    async with fleet(tmp_path, redis_server) as (one, two):
        clients = [Client("b") for _ in range(20)]
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(client.connected(one)) for client in clients]
            await two.send("b", 1, 20)
            for client in clients:
                await client.until(20)
            sending = asyncio.create_task(two.send("b", 21, 220))
            one.process.kill()
            await asyncio.gather(*(socket.wait_closed() for socket in sockets))
        async with AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client.connected(two))
            await sending
            for client in clients:
                await client.until(220)
        for client in clients:
            assert client.got == list(range(1, 221))
            assert client.answers == [True]


async def _cut(admin: Redis) -> None:
    """Cut the links on which instances get messages; after an earlier cut, once they are back."""
    async with asyncio.timeout(10):
        while not await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub"):  # noqa: ASYNC110  # Redis has no word for it
            await asyncio.sleep(0.01)


async def test_a_redis_link_that_is_cut_in_a_stream_of_sends_costs_nothing_that_is_kept(
    tmp_path: Path, redis_server: RedisServer
):
    async with (
        fleet(tmp_path, redis_server) as (one, two),
        Redis.from_url(redis_server.url) as admin,
    ):
        clients = [Client("c") for _ in range(3)]
        async with AsyncExitStack() as stack:
            for client, instance in zip(clients, (one, one, two), strict=True):
                await stack.enter_async_context(client.connected(instance))
            await one.send("c", 1, 1)
            for client in clients:
                await client.until(1)
            sending = asyncio.create_task(two.send("c", 2, 2000))
            for count in (50, 400, 800):
                await clients[0].until(count)
                await _cut(admin)
            await sending
            for client in clients:
                await client.until(2000)
        for client in clients:
            assert client.got == list(range(1, 2001)), "no loss, no double, in order"
        assert (await one.get("/info"))["gaps"] >= 1
        assert (await one.get("/info"))["healed"] + (await two.get("/info"))["healed"] > 0
