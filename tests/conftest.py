from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.servers import RabbitMQServer, RedisServer, ServerUnavailable

# Each kind of server that could not be had -> why, and how many tests wanted it.
_MISSING = pytest.StashKey[dict[str, tuple[str, int]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = {}
    # Without this a SIGTERM ends the run at once and leaves the servers that it owns.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", returncode=143))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    yield from _skipped_without_its_servers(item.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    yield from _skipped_without_its_servers(item.config)


def _skipped_without_its_servers(config: pytest.Config) -> Generator[None]:
    try:
        yield
    except ServerUnavailable as missing:
        reason, wanted_by = config.stash[_MISSING].get(missing.server, (missing.reason, 0))
        config.stash[_MISSING][missing.server] = (reason, wanted_by + 1)
        if os.environ.get("JARARACA_WS_LIVE") == "1":
            raise
        pytest.skip(str(missing))


# The outermost wrapper of the session's end: the last lines, below the "N passed".
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    yield
    terminal = session.config.get_terminal_writer()
    live = os.environ.get("JARARACA_WS_LIVE") == "1"
    for server, (reason, wanted_by) in sorted(session.config.stash[_MISSING].items()):
        fate = "FAILED, JARARACA_WS_LIVE=1" if live else "SKIPPED"
        tests = "1 test" if wanted_by == 1 else f"{wanted_by} tests"
        terminal.line(f"{fate}: {tests} for want of {server}: {reason}", yellow=not live, red=live)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """A blocking call in an event loop that comes from the package's own code fails the test."""
    with blockbuster_ctx("jararaca_ws") as guard:
        # redis-py reads its own version from its metadata, once for each connection that fakeredis makes.
        for function in guard.functions.values():
            function.can_block_in("redis/utils.py", {"get_lib_version"})
        yield guard


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """One node for the whole run: a test uses queue and exchange names of its own, and leaves the node running."""
    server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise ServerUnavailable("chromium", "not on PATH (apt-get install chromium)")
