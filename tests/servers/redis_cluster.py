"""Three masters that share the slots, and move one by one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot

from tests.servers.process import free_port
from tests.servers.redis import RedisServer

_SLOTS = 16_384


class ClusterNode(RedisServer):
    """One node: a redis-server with a port for the other nodes.

    Raises:
        ServerUnavailable: redis-server is not installed.
    """

    def __init__(self, directory: Path) -> None:
        self.bus = free_port()
        super().__init__(
            directory,
            extra_args=(
                *("--cluster-enabled", "yes", "--cluster-port", str(self.bus), "--cluster-node-timeout", "1000"),
                *("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"),
            ),
        )

    def ask(self, *words: Any) -> Any:
        with Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*words)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER MYID"))


class RedisClusterServers:
    """Masters with the slots spread evenly, the last ones replicas of the first where asked for.

    Raises:
        ServerUnavailable: redis-server is not installed.
    """

    def __init__(self, directory: Path, *, replicas: int = 0) -> None:
        self.masters = [ClusterNode(directory / f"master-{n}") for n in range(3)]
        self.replicas = [ClusterNode(directory / f"replica-{n}") for n in range(replicas)]

    @property
    def nodes(self) -> list[ClusterNode]:
        return self.masters + self.replicas

    def start(self) -> None:
        """Start the nodes and wait until they all agree that the cluster is up."""
        for node in self.nodes:
            node.start()
        share = -(-_SLOTS // len(self.masters))
        for n, node in enumerate(self.masters):
            node.ask("CLUSTER ADDSLOTSRANGE", n * share, min((n + 1) * share, _SLOTS) - 1)
            node.ask("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in self.nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus)
        self._wait(lambda: all(self._is_up(node) for node in self.nodes))
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.ask("CLUSTER REPLICATE", master.id)
        self._wait(
            lambda: all("master_link_status:up" in _text(node.ask("INFO replication")) for node in self.replicas)
        )

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def owner(self, key: str) -> ClusterNode:
        """The master that has a key's slot."""
        slot = key_slot(key.encode())
        for first, last, (_, port, *_), *_ in self.masters[-1].ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                [node] = [node for node in self.nodes if node.port == port]
                return node
        raise LookupError(key)

    def migrate(self, key: str, target: ClusterNode) -> None:
        """Move the slot of a key, with all its keys, to another master, as redis-cli does."""
        slot, source = key_slot(key.encode()), self.owner(key)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        keys = source.ask("CLUSTER GETKEYSINSLOT", slot, 10_000)
        if keys:
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *(node for node in self.masters if node not in (target, source))):
            node.ask("CLUSTER SETSLOT", slot, "NODE", target.id)

    def _is_up(self, node: ClusterNode) -> bool:
        info = _text(node.ask("CLUSTER INFO"))
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info

    def _wait(self, condition: Any, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the Redis cluster does not come up")
            time.sleep(0.02)


def _text(reply: Any) -> str:
    """redis-py makes a dictionary of some answers."""
    return "\n".join(f"{key}:{value}" for key, value in reply.items()) if isinstance(reply, dict) else str(reply)
