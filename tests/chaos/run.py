"""One chaos run: load and faults side by side, then everything is healed, and what was noted is judged."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.chaos.clients import Client, Understands
from tests.chaos.fleet import Fleet
from tests.chaos.schedule import INSTANCES, Fault
from tests.chaos.senders import KEYED, PASSING, Sender, senders
from tests.chaos.verdict import Event, Log, Noted, Verdict, judge
from tests.faults.history import Message, Promise

__all__ = ["Report", "run"]

ROOMS = [f"room-{n}" for n in range(4)]

_QUIET_S = 60.0
"""How long everything may take to arrive, once all is healed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run has shown.

    Attributes:
        events: its log, for whoever wants to judge again.
        faults: how often each kind happened.
        closes: how often connections of clients ended, by how.
    """

    verdict: Verdict
    events: Sequence[Event]
    faults: Counter[str]
    closes: Counter[str]


async def run(
    faults: Sequence[Fault],
    duration_s: float,
    directory: Path,
    *,
    seed: int,
    clients: int,
    with_rabbitmq: bool,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Let the faults happen to a fleet under load.

    Raises:
        ServerUnavailable: a server is not installed.
        TimeoutError: the fleet did not come up, before or after.
    """
    log = Log()
    listening = [_client(n, log) for n in range(clients)]
    async with (
        Fleet(directory, log, with_rabbitmq=with_rabbitmq) as fleet,
        httpx.AsyncClient(timeout=8, trust_env=False, limits=httpx.Limits(max_connections=None)) as http,
    ):
        tell("the fleet is up")
        await _Run(fleet, http, log, listening, random.Random(seed), tell).all(faults, duration_s)
    closes = sum((client.closes for client in listening), Counter[str]())
    return Report(verdict=judge(log.events), events=log.events, faults=fleet.suffered, closes=closes)


def _client(n: int, log: Log) -> Client:
    kinds = (Understands.RECOVERY, Understands.CONTROL, Understands.RECOVERY, Understands.NOTHING)
    understands = kinds[n % len(kinds)]
    rooms = [ROOMS[n // len(kinds) % len(ROOMS)]]
    # A plain client cannot know which places of a room stand for what has come through another one.
    if understands is not Understands.NOTHING:
        rooms.append(ROOMS[(n + 1) % len(ROOMS)])
    return Client(str(n), understands, list(dict.fromkeys(rooms)), log)


class _Run:
    def __init__(
        self,
        fleet: Fleet,
        http: httpx.AsyncClient,
        log: Log,
        clients: list[Client],
        rng: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self._fleet = fleet
        self._http = http
        self._log = log
        self._clients = clients
        self._rng = rng
        self._tell = tell

    async def all(self, faults: Sequence[Fault], duration_s: float) -> None:
        stop_clients = asyncio.Event()
        await self._mark("first")  # a room that has kept nothing yet has no place to come back to
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._fleet.keep())
            for client in self._clients:
                tasks.create_task(client.run(self._fleet.ports, self._rng, stop_clients))
            if await self._until(lambda: all(client.ready for client in self._clients)):
                begun = len(self._log.events)
                await self._under_load(faults, duration_s)
                await self._settle(self._log.events[begun:])
            else:
                self._log.wrong("the clients did not all connect at the beginning")
            stop_clients.set()
            keeping.cancel()

    async def _under_load(self, faults: Sequence[Fault], duration_s: float) -> None:
        stop = asyncio.Event()
        begun_s = time.monotonic()
        with_rabbitmq = self._fleet.rabbitmq is not None
        async with asyncio.TaskGroup() as tasks:
            for sender in senders(ROOMS, self._http, self._log, with_rabbitmq=with_rabbitmq):
                tasks.create_task(sender.run(self._fleet.ports, self._rng, stop))
            for fault in faults:
                await asyncio.sleep(begun_s + fault.at_s - time.monotonic())
                self._tell(str(fault))
                tasks.create_task(self._fleet.suffer(fault))
            await asyncio.sleep(begun_s + duration_s - time.monotonic())
            stop.set()

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _settle(self, events: Sequence[Event]) -> None:
        """Everything is healed: wait until all that was accepted has arrived, and until a last message of each has."""
        if not await self._until(lambda: self._fleet.up):
            self._log.wrong("not all processes came up again")
        self._tell("all is healed")
        if not await self._until(lambda: all(client.ready for client in self._clients)):
            self._log.wrong("not all clients came back")
        await self._until(lambda: self._has_all_kept(events))  # the verdict says what is missing
        marks = await self._mark("last")
        if not await self._until(lambda: all(self._has_marks(client, marks) for client in self._clients)):
            self._log.wrong("the last messages did not reach everybody")
        self._tell("all is quiet")

    def _has_all_kept(self, events: Sequence[Event]) -> bool:
        owed = [
            event.message
            for event in events
            if event.noted in (Noted.ACCEPTED, Noted.HANDED_OVER)
            and event.promise is Promise.RECOVERABLE
            and event.message is not None
        ]
        recovering = [client for client in self._clients if client.understands is Understands.RECOVERY]
        return all(
            message in client.got[Promise.RECOVERABLE]
            for client in recovering
            for message in owed
            if any(room in client.rooms for room in (message.room or "").split())
        )

    async def _mark(self, name: str) -> dict[Promise, list[Message]]:
        """Send one message of each kind to each room, until it is accepted."""
        marks: dict[Promise, list[Message]] = {promise: [] for promise in Promise}
        never = asyncio.Event()
        for room in ROOMS:
            for way in (KEYED, PASSING):
                sender = Sender(f"{name}{way.path}/{room}", room, INSTANCES[0], way, self._http, self._log)
                while (message := await sender.send(self._fleet.ports, never)) is None:  # noqa: ASYNC110  # it tries
                    await asyncio.sleep(0.1)
                marks[way.promise].append(message)
        return marks

    def _has_marks(self, client: Client, marks: dict[Promise, list[Message]]) -> bool:
        return all(
            message in client.got[promise]
            for promise, messages in marks.items()
            for message in messages
            if message.room in client.rooms
        )

    async def _until(self, condition: Callable[[], bool]) -> bool:
        """Whether it comes true in time."""
        try:
            async with asyncio.timeout(_QUIET_S):
                while not condition():  # noqa: ASYNC110  # it is about other processes
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return False
        return True
