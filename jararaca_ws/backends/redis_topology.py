"""Which node of a Redis cluster has which slot, now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import MovedError, RedisError

from jararaca_ws.backends.redis_link import Link, unavailable
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["Address", "Topology"]

Address = tuple[str, int]
Settle = Callable[[BackendUnavailable | None], Awaitable[None]]

_CALM_S = 5.0
"""After so long without trouble the first question comes soon again."""


class Topology:
    """The masters of a cluster and their slots. Asked for again, by one task for all, whenever somebody has trouble.

    Args:
        conn: the client whose nodes, credentials and TLS settings are used; never itself connected.
        connect_timeout: for a connection to be made.

    Attributes:
        links: to each node that has slots, and those that the client was given.
    """

    def __init__(self, conn: RedisCluster, connect_timeout: timedelta) -> None:
        self._connect_timeout_s = connect_timeout.total_seconds()
        self._seeds: dict[Address, Link] = {}
        for node in conn.nodes_manager.startup_nodes.values():
            options = {**node.connection_kwargs}
            options.pop("redis_connect_func", None)  # it asks for a replica's permission to read
            link = Link(node.connection_class, options, connect_timeout)
            self._seeds[link.address] = link
        self.links = dict(self._seeds)
        self._owners: dict[int, Address] = {}
        # Who is asked first, because somebody was sent there; None: nobody was.
        self._hint: Address | None = None
        self._listeners: list[Settle] = []
        self._wake = asyncio.Event()
        self._backoff = Backoff(first_s=0.05, max_s=1.0)
        self._delays = self._backoff.delays()
        self._asked_at = 0.0
        self._task = Supervised("jararaca_ws Redis cluster topology", self._work)

    def __str__(self) -> str:
        """The nodes that the client was given, without passwords."""
        return f"a cluster: {', '.join(map(str, self._seeds.values()))}"

    def on_change(self, settle: Settle) -> None:
        """``settle`` is called after each answer, with None, and after each failure to get one, with that."""
        self._listeners.append(settle)

    def owner(self, slot: int) -> Address | None:
        """The master that has a slot; None where none has."""
        return self._owners.get(slot)

    @property
    def masters(self) -> set[Address]:
        """Those that have slots."""
        return set(self._owners.values())

    async def start(self) -> None:
        """Ask for the first time.

        Raises:
            BackendUnavailable: no node can be reached.
        """
        await self.refresh()
        self._wake = asyncio.Event()
        self._task.start()

    async def stop(self) -> None:
        await self._task.stop()

    def trouble(self, error: BaseException | None = None) -> None:
        """Ask again, soon. The error may say where the slot is that was looked for."""
        if isinstance(error, MovedError):
            self._hint = (str(error.host), int(error.port))
        self._wake.set()

    async def _work(self, task: Supervised) -> None:
        task.mark_healthy()
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if loop.time() - self._asked_at > _CALM_S:
                self._delays = self._backoff.delays()
            await asyncio.sleep(next(self._delays))
            self._asked_at = loop.time()
            failure: BackendUnavailable | None = None
            try:
                await self.refresh()
            except BackendUnavailable as error:
                failure = error
                self._wake.set()
            for settle in self._listeners:
                await settle(failure)

    async def refresh(self) -> None:
        """Ask one node after another until one answers.

        Raises:
            BackendUnavailable: none does.
        """
        hint, self._hint = self._hint, None
        links = {**self.links, **self._seeds}
        if hint is not None:
            links = {hint: links.get(hint) or next(iter(links.values())).to(*hint), **links}
        failure = BackendUnavailable("the client of the Redis cluster has no nodes")
        for link in links.values():
            try:
                self._learn(await self._ask(link), link)
                return
            except BackendUnavailable as error:
                failure = error
        raise failure

    async def _ask(self, link: Link) -> list[Any]:
        connection = await link.open()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.send_command("CLUSTER", "SLOTS", check_health=False)
                reply: Any = await connection.read_response(disable_decoding=True)
        except (RedisError, OSError) as error:
            raise unavailable(error) from error
        finally:
            await connection.disconnect(nowait=True)
        if not reply:
            raise BackendUnavailable("a node of the Redis cluster knows no slots")
        return list(reply)

    def _learn(self, ranges: list[Any], teller: Link) -> None:
        owners: dict[int, Address] = {}
        for first, last, (host, port, *_), *_ in ranges:
            # A node that does not know its own name leaves it out.
            address = (host.decode() if host not in (None, b"", b"?") else teller.address[0], int(port))
            owners.update(dict.fromkeys(range(first, last + 1), address))
        self._owners = owners
        self.links = {address: self.links.get(address) or teller.to(*address) for address in self.masters}
