"""Redis in its other forms: behind a Sentinel that fails over, with TLS, and for a user who may do little."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from jararaca_ws.backends.base import Publication, Retention
from jararaca_ws.backends.redis import RedisWebSocketConnectionBackend
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.testing import BACKEND_CONTRACT
from jararaca_ws.testing.recorder import Recorder
from tests.servers import RedisServer, free_port
from tests.servers.redis_sentinel import SERVICE, SentinelSetup

pytestmark = pytest.mark.redis

KEEP = Retention(size=10_000, ttl_ms=600_000)
ACL = Path(__file__).parents[2] / "docs" / "examples" / "redis_user.acl"


@asynccontextmanager
async def started(
    conn: Redis | str, **options: object
) -> AsyncIterator[tuple[Recorder, RedisWebSocketConnectionBackend]]:
    settings = {"probe_interval": timedelta(milliseconds=300), **options}
    backend = RedisWebSocketConnectionBackend(conn=conn, **settings)  # type: ignore[arg-type]
    recorder = Recorder(backend)
    await recorder.start()
    try:
        yield recorder, backend
    finally:
        await recorder.stop()


def kept(payload: bytes) -> Publication:
    return Publication(["a"], payload, payload.decode(), KEEP)


# --- Sentinel ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[SentinelSetup]:
    setup = SentinelSetup(tmp_path)
    try:
        setup.start()
        yield setup
    finally:
        setup.stop()


@asynccontextmanager
async def client_of(setup: SentinelSetup) -> AsyncIterator[Redis]:
    sentinel = Sentinel([("127.0.0.1", setup.port)], sentinel_kwargs={"socket_timeout": 1})
    try:
        yield sentinel.master_for(SERVICE)  # nothing else holds on to it
    finally:
        for client in sentinel.sentinels:
            await client.aclose()


async def test_f11_after_a_failover_it_is_back_soon_and_lost_writes_are_told(sentinel: SentinelSetup):
    async with (
        client_of(sentinel) as client,
        started(client, publish_timeout=timedelta(seconds=30)) as (one, backend),
        Redis.from_url(sentinel.master.url) as master,
    ):
        del client
        await one.subscribe("a")
        await backend.send_many([kept(b"%d" % n) for n in range(1, 6)])
        [survived] = await backend.positions(["a"])
        assert survived is not None
        await master.wait(1, 5000)
        # The replica misses what comes now: it stands still, and its link is cut.
        sentinel.replica.pause()
        await master.execute_command("CLIENT", "KILL", "TYPE", "replica")
        await backend.send_many([kept(b"6"), kept(b"7")])
        [lost] = await backend.positions(["a"])
        assert lost is not None
        await one.until(lambda: len(one.entries) == 7)
        sentinel.master.kill()
        sentinel.replica.resume()
        sending = asyncio.create_task(backend.send_many([kept(b"after")]))  # tried again until there is a master
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(sentinel.has_failed_over):  # noqa: ASYNC110  # it is asked for
                await asyncio.sleep(0.05)
        chosen = time.monotonic()
        await sending
        await one.until(lambda: bool(one.gaps))
        # The bound is F11's; that it is one is what is shown.
        assert time.monotonic() - chosen < 5
        assert not (await backend.history("a", lost, 100)).recovered
        replay = await backend.history("a", survived, 100)
        assert [(entry.position.offset, entry.payload) for entry in replay.entries] == [(6, b"after")]
        assert replay.recovered
        assert replay.position.epoch != lost.epoch
        # The Sentinel may cut the connections to the new master once more, and what is sent then comes by the history.
        async with asyncio.timeout(10):
            for n in count():
                await backend.send_many([kept(b"live %d" % n)])
                if any(entry.payload.startswith(b"live") for _, entry, _ in one.entries):
                    break
                await asyncio.sleep(0.05)
        assert all(gap == (["a"], True) for gap in one.gaps)


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a server that speaks TLS only, and the certificate to trust."""
    certificate, key = tmp_path / "redis.crt", tmp_path / "redis.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    # Beside it a plain port, by which the fixture sees that it is up.
    server = RedisServer(tmp_path / "redis", extra_args=("--tls-port", str(port), "--tls-auth-clients", "no", *files))
    try:
        server.start()
        yield port, certificate
    finally:
        server.stop()


async def test_it_speaks_tls_and_checks_the_certificate(tls: tuple[int, Path]):
    port, certificate = tls
    url = f"rediss://127.0.0.1:{port}/0"
    clients = [
        Redis(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=str(certificate)),
        f"{url}?ssl_ca_certs={certificate}",
    ]
    for n, conn in enumerate(clients):
        async with started(conn) as (one, backend):
            await one.subscribe("a")
            await backend.send_many([kept(b"%d" % n)])
            await one.until(lambda: bool(one.entries))
            assert (await backend.history("a", None, 1)).entries == [one.entries[0][1]]
    with pytest.raises(BackendUnavailable, match="certificate"):
        async with started(url):
            pass


# --- ACL --------------------------------------------------------------------------------------------------------------


def test_the_rule_in_the_documentation_is_the_tested_one():
    [rule] = [line for line in ACL.read_text().splitlines() if line.startswith("user ")]
    assert f"\n{rule}\n" in (ACL.parents[1] / "redis.md").read_text()


@pytest.fixture
def restricted(redis_server: RedisServer) -> str:
    """The URL of the user that the documentation shows."""
    [rule] = [line for line in ACL.read_text().splitlines() if line.startswith("user ")]
    _, name, *rules = rule.split()
    command = ["ACL", "SETUSER", name, *rules]
    subprocess.run(
        ["redis-cli", "-p", str(redis_server.port), *command], check=True, capture_output=True, text=True, timeout=10
    )
    return f"redis://{name}:change-me@127.0.0.1:{redis_server.port}/0"


@pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)
async def test_a_user_with_the_documented_rule_can_do_all(check: Callable[..., object], restricted: str):
    await check(lambda: RedisWebSocketConnectionBackend(restricted, prefix="chat"))  # type: ignore[misc]


async def test_that_user_can_do_nothing_else(restricted: str, redis_server: RedisServer):
    async with Redis.from_url(restricted) as client, Redis.from_url(redis_server.url) as admin:
        for command in ("GET other", "PUBLISH other x", "KEYS *", "CONFIG GET *", "FLUSHALL", "ACL LIST"):
            with pytest.raises(Exception, match="permission"):
                await client.execute_command(*command.split())
        await admin.execute_command("ACL", "SETUSER", "chat", "-info")
    with pytest.raises(BackendUnavailable, match="info"):
        await Recorder(RedisWebSocketConnectionBackend(restricted, prefix="chat")).start()


async def test_a_user_of_another_prefix_is_refused_at_the_start(restricted: str):
    recorder = Recorder(
        RedisWebSocketConnectionBackend(restricted, prefix="other", subscribe_timeout=timedelta(milliseconds=500))
    )
    with pytest.raises(BackendUnavailable, match="permission"):
        await recorder.start()
    await recorder.stop()
