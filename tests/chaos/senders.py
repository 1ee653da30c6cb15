"""Who sends in a chaos run: each one message after the other to one room, by REST on one of the instances."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import httpx

from tests.chaos.schedule import INSTANCES
from tests.chaos.verdict import Log, Noted
from tests.faults.history import Message, Promise

__all__ = ["Sender", "Way", "senders"]

_RETRY_S = 0.2


class Way(NamedTuple):
    """One way in which a message goes to a room."""

    path: str
    promise: Promise
    mean_pause_s: float
    # Whether it is tried again, with the same id, until it is accepted.
    is_keyed: bool = False


KEPT = Way("/kept", Promise.RECOVERABLE, 0.2)
PASSING = Way("/passing", Promise.EPHEMERAL, 0.2)
KEYED = Way("/keyed", Promise.RECOVERABLE, 0.4, is_keyed=True)
BOTH = Way("/kept", Promise.RECOVERABLE, 0.4)
"""To two rooms at once."""
PUSHED = Way("/pushed", Promise.RECOVERABLE, 0.4)


class Sender:
    """Sends, one message after the other, until it is told to stop.

    One that does not know what became of a message goes on under another name: that message may still come, after
    those that follow. With the bus every message has a sender of its own, for the bus has no order where it retries.
    """

    def __init__(self, name: str, room: str, instance: str, way: Way, http: httpx.AsyncClient, log: Log) -> None:
        self._name = name
        self._room = room
        self._instance = instance
        self._way = way
        self._http = http
        self._log = log
        self._incarnation = 0
        self._sequence = 0

    async def run(self, ports: dict[str, int], rng: random.Random, stop: asyncio.Event) -> None:
        while not stop.is_set():
            sent = await self.send(ports, stop)
            await asyncio.sleep(rng.expovariate(1 / self._way.mean_pause_s) if sent else _RETRY_S)

    async def send(self, ports: dict[str, int], stop: asyncio.Event) -> Message | None:
        """Send the next message. None where nobody knows whether it was accepted."""
        promise = self._way.promise
        message = Message(self._room, f"{self._name}.{self._incarnation}", self._sequence)
        self._log.note(Noted.SENDING, promise, message.sender, self._room, message)
        if self._way is PUSHED:  # what becomes of the second that the handler sends, nobody tells us
            self._log.note(Noted.SENDING, Promise.EPHEMERAL, message.sender, self._room, message)
        was_accepted = await self._try(message, ports, stop)
        if was_accepted:
            accepted = Noted.HANDED_OVER if self._way is PUSHED else Noted.ACCEPTED
            self._log.note(accepted, promise, message.sender, self._room, message)
        self._sequence += 1
        if not was_accepted or self._way is PUSHED:
            self._incarnation += 1
            self._sequence = 0
        return message if was_accepted else None

    async def _try(self, message: Message, ports: dict[str, int], stop: asyncio.Event) -> bool:
        for instance in self._instances():
            if await self._post(ports[instance], message):
                return True
            if not self._way.is_keyed or stop.is_set():
                break
            await asyncio.sleep(_RETRY_S)
        return False

    def _instances(self) -> Iterator[str]:
        start = INSTANCES.index(self._instance)
        while True:
            yield INSTANCES[start % len(INSTANCES)]
            start += 1

    async def _post(self, port: int, message: Message) -> bool:
        try:
            response = await self._http.post(f"http://127.0.0.1:{port}{self._way.path}", json=message._asdict())
        except httpx.HTTPError:
            return False
        if response.status_code not in (202, 503):
            self._log.wrong(f"{self._way.path} answered {response.status_code}: {response.text[:200]}")
        return response.status_code == 202


def senders(rooms: list[str], http: httpx.AsyncClient, log: Log, *, with_rabbitmq: bool) -> list[Sender]:
    """The load of a run: for each room, and each two neighbours, and instance one sender of each way."""
    ways = [KEPT, PASSING, KEYED] + ([PUSHED] if with_rabbitmq else [])
    load = [(room, way) for room in rooms for way in ways]
    load += [(f"{one} {other}", BOTH) for one, other in pairwise(rooms)]
    return [
        Sender(f"{instance}{way.path}/{room}", room, instance, way, http, log)
        for room, way in load
        for instance in INSTANCES
    ]
