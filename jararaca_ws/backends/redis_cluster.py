"""A Redis cluster: each room at the node that has its slot, with a pipeline and a subscriber for each node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any

from redis.crc import key_slot

from jararaca_ws.backends.redis_keys import Channels, escaped
from jararaca_ws.backends.redis_pipeline import RedisPipeline, Request, still_to_do
from jararaca_ws.backends.redis_scripts import Call, Command
from jararaca_ws.backends.redis_subscriber import RedisSubscriber
from jararaca_ws.backends.redis_topology import Address, Topology
from jararaca_ws.errors import BackendUnavailable

__all__ = ["ClusterPipeline", "ClusterSubscriber", "ShardedChannels"]


class ShardedChannels(Channels):
    """As `Channels`, and a room's Redis channel has the slot of its keys."""

    def of(self, room: str) -> bytes:
        return self._send + f"{{{escaped(room)}}}".encode()

    def room(self, channel: bytes) -> str:
        tag = channel.removeprefix(self._send)[1:-1].decode()
        return tag.replace("%7D", "}").replace("%7B", "{").replace("%25", "%")


class ClusterPipeline:
    """As `RedisPipeline`, which it has one of for each node.

    What a node does not answer, or sends elsewhere, waits here until the topology is known again, and everything that
    comes for those slots waits behind it: order holds within a slot.
    """

    def __init__(self, topology: Topology, *, name: str, timeout: timedelta, max_pending_bytes: int) -> None:
        self._topology = topology
        self._name = name
        self._timeout = timeout
        self._max_pending_bytes = max_pending_bytes
        self._nodes: dict[Address, RedisPipeline] = {}
        self._homeless: list[Request] = []
        # Of pipelines that are no more.
        self._written = 0
        self._running = False
        topology.on_change(self._settle)

    @property
    def pipelines(self) -> int:
        return self._written + sum(node.pipelines for node in self._nodes.values())

    @property
    def healthy(self) -> bool:
        """Whether all nodes take what they are given."""
        return not self._homeless and all(node.healthy for node in self._nodes.values())

    @property
    def full(self) -> bool:
        """Whether a node lately refused something because it is out of memory."""
        return any(node.full for node in self._nodes.values())

    def start(self) -> None:
        self._running = True

    async def stop(self) -> None:
        self._running = False
        homeless, self._homeless = self._homeless, []
        for request in homeless:
            request.fail(BackendUnavailable("it was shut down"))
        while self._nodes:
            _, node = self._nodes.popitem()
            await node.stop()

    async def execute(self, commands: Sequence[Command], size: int = 0) -> list[Any]:
        """Have commands done, in order within each slot; their replies.

        Raises:
            BackendUnavailable: at least one was not, or nobody knows.
        """
        if not self._running:
            raise BackendUnavailable("it is not running")
        pending = sum(node.pending_bytes for node in self._nodes.values()) + sum(one.size for one in self._homeless)
        if pending and pending + size > self._max_pending_bytes:
            raise BackendUnavailable(f"{pending} bytes wait to be published already (max_pending_bytes)")
        slots: dict[int, list[int]] = {}
        for n, command in enumerate(commands):
            slots.setdefault(key_slot(_key(command)), []).append(n)
        timeout_s = self._timeout.total_seconds()
        requests = [
            Request([commands[n] for n in indices], size * len(indices) // len(commands), timeout_s, slot)
            for slot, indices in slots.items()
        ]
        for request in requests:
            self._place(request, {waiting.slot for waiting in self._homeless})
        replies: list[Any] = [None] * len(commands)
        # No task is made: these are futures.
        answered = await asyncio.gather(*(request.done for request in requests))
        for indices, answers in zip(slots.values(), answered, strict=True):
            for n, reply in zip(indices, answers, strict=True):
                replies[n] = reply
        return replies

    def _place(self, request: Request, waiting: Collection[int]) -> None:
        owner = self._topology.owner(request.slot)
        if owner is None or request.slot in waiting:
            self._homeless.append(request)
            self._topology.trouble()
        else:
            self._node(owner).enqueue(request)

    def _node(self, address: Address) -> RedisPipeline:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = RedisPipeline(
                self._topology.links[address],
                name=f"{self._name} {address[0]}:{address[1]}",
                timeout=self._timeout,
                max_pending_bytes=self._max_pending_bytes,
                hand_back=self._take_back,
            )
            node.start()
        return node

    def _take_back(self, requests: list[Request], error: BaseException) -> None:
        self._homeless += requests
        self._topology.trouble(error)

    async def _settle(self, failure: BackendUnavailable | None) -> None:
        """The topology is known again, or cannot be had: send on what waits, or go on waiting."""
        reason = failure or BackendUnavailable("no node of the Redis cluster takes what is published to this slot")
        homeless, self._homeless = still_to_do(self._homeless, 0, reason), []
        if failure is not None:
            self._homeless = homeless
            return
        for request in homeless:
            self._place(request, ())
        gone = [address for address, node in self._nodes.items() if node.idle and address not in self._topology.links]
        for address in gone:
            node = self._nodes.pop(address)
            self._written += node.pipelines
            await node.stop()


def _key(command: Command) -> bytes:
    if isinstance(command, Call):
        return command.keys[0]
    key: bytes = command[2] if command[0] == "PUBSUB" else command[1]
    return key


class ClusterSubscriber:
    """As `RedisSubscriber`, which it has one of for each node.

    Args:
        topology: which node has which slot.
        make: a subscriber, from the link to a node and ``on_trouble``.
        timeout: for a subscription to be confirmed.
    """

    def __init__(
        self,
        topology: Topology,
        make: Callable[..., RedisSubscriber],
        timeout: timedelta,
    ) -> None:
        self._topology = topology
        self._make = make
        self._timeout_s = timeout.total_seconds()
        self._nodes: dict[Address, RedisSubscriber] = {}
        # Where each channel is that is wanted, or that nobody has told otherwise.
        self._where: dict[bytes, Address] = {}
        self._restarted = 0
        topology.on_change(self._settle)

    @property
    def healthy(self) -> bool:
        """Every node that has a channel of ours was heard from lately."""
        return bool(self._nodes) and all(node.healthy for node in self._nodes.values())

    @property
    def lag_s(self) -> float | None:
        """How long the slowest node took to answer the watchdog; None before the first answer."""
        return max((node.lag_s for node in self._nodes.values() if node.lag_s is not None), default=None)

    @property
    def restarts(self) -> int:
        return self._restarted + sum(node.restarts for node in self._nodes.values())

    def start(self) -> None:
        """Nodes are connected to as they get channels."""

    async def stop(self) -> None:
        self._where.clear()
        while self._nodes:
            _, node = self._nodes.popitem()
            await node.stop()

    async def subscribe(self, channels: Collection[bytes]) -> None:
        """Want channels; returns when their nodes have confirmed them all.

        Raises:
            BackendUnavailable: not confirmed within the timeout, or no node has the slot. They stay wanted until
                `unsubscribe`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                waiting = self._want(channels)
                while waiting:
                    for confirmation in waiting:
                        await asyncio.shield(confirmation)
                    # Some may have gone to another node meanwhile, and some nobody may want any more.
                    waiting = self._want([channel for channel in channels if channel in self._where])
        except TimeoutError:
            problem = next((node.problem for node in self._nodes.values() if node.problem), "")
            raise BackendUnavailable(
                f"Redis did not confirm a subscription within {self._timeout_s:g} s {problem}".rstrip()
            ) from None

    def _want(self, channels: Iterable[bytes]) -> list[asyncio.Future[None]]:
        placed = {channel: self._place(channel) for channel in channels}
        groups = _grouped(placed).items()
        return [confirmation for address, its in groups for confirmation in self._node(address).want(its)]

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Want channels no more. Their nodes are told after the linger."""
        placed = {channel: self._where.pop(channel) for channel in channels if channel in self._where}
        for address, its in _grouped(placed).items():
            self._nodes[address].unsubscribe(its)

    def _place(self, channel: bytes) -> Address:
        address = self._where.get(channel) or self._topology.owner(key_slot(channel))
        if address is None:
            self._topology.trouble()
            raise BackendUnavailable("no node of the Redis cluster has the slot of this room")
        self._where[channel] = address
        return address

    def _node(self, address: Address) -> RedisSubscriber:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._make(self._topology.links[address], on_trouble=self._topology.trouble)
            node.start()
        return node

    async def _settle(self, failure: BackendUnavailable | None) -> None:
        """The topology is known again: every channel goes to the node that has its slot now."""
        if failure is not None:
            return
        moves: dict[tuple[Address, Address], list[bytes]] = {}
        for channel, address in self._where.items():
            owner = self._topology.owner(key_slot(channel))
            if owner is not None and owner != address:
                moves.setdefault((address, owner), []).append(channel)
        for (old, new), channels in moves.items():
            missed = self._nodes[old].abandon(channels)
            self._where.update(dict.fromkeys(channels, new))
            self._node(new).adopt(channels, missed)
        for node in self._nodes.values():
            node.resume()
        used = set(self._where.values())
        for address in [address for address in self._nodes if address not in used | self._topology.masters]:
            node = self._nodes.pop(address)
            self._restarted += node.restarts
            await node.stop()


def _grouped(placed: dict[bytes, Address]) -> dict[Address, list[bytes]]:
    groups: dict[Address, list[bytes]] = {}
    for channel, address in placed.items():
        groups.setdefault(address, []).append(channel)
    return groups
