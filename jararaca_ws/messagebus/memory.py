"""The message bus inside one process: no server to install, the same routing, retries and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

from jararaca_ws.errors import BrokerUnavailable, Unroutable
from jararaca_ws.health import Health
from jararaca_ws.messagebus.attempt import Attempt, Dead, Retry, Running
from jararaca_ws.messagebus.controllers import HandlerSpec
from jararaca_ws.messagebus.message import Message
from jararaca_ws.messagebus.publisher import MAX_MESSAGE_BYTES, Dispatch, EncodedMessage, encode
from jararaca_ws.supervision import Supervised

__all__ = ["DeadLetter", "MemoryMessageBus"]

_log = logging.getLogger("jararaca_ws.messagebus")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, with the reason."""

    handler: HandlerSpec
    attempt: Attempt
    dead: Dead


class MemoryMessageBus:
    """Messages go to the handlers of this process, which run in it.

    For development, for tests, and for an application that is one process. Routing, order, retries with backoff and
    dead letters are those of the RabbitMQ bus. What waits is lost when the process ends: at most once across a
    restart.

    Args:
        max_queued: how many messages one handler may have outstanding (waiting, running or to be retried). Beyond it
            `publish` raises `BrokerUnavailable` at once; waiting could not end where a handler publishes to itself.
        max_dead_letters: how many are kept; then the oldest goes. Each was logged.
        max_retry_delay: bounds the handlers' backoff; zero makes tests of retries fast.

    Attributes:
        dead_letters: the messages that were given up, the oldest first.
    """

    embedded = True

    def __init__(
        self,
        *,
        max_queued: int = 10_000,
        max_dead_letters: int = 1_000,
        max_retry_delay: timedelta = timedelta.max,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self.dead_letters: deque[DeadLetter] = deque(maxlen=max_dead_letters)
        self._max_queued = max_queued
        self._max_retry_delay_s = max_retry_delay.total_seconds()
        self._queues: dict[str, _HandlerQueue] = {}

    async def start(self) -> None:
        """Nothing to reach: queues appear when handlers begin to consume."""

    async def stop(self) -> None:
        """Stop consuming at once, and drop what still waits (the number is logged)."""
        await self.stop_consuming(timedelta(0))
        if lost := sum(queue.outstanding for queue in self._queues.values()):
            _log.warning("%d messages that were not handled yet are lost: the bus is in memory", lost)
        self._queues.clear()

    def health(self) -> list[Health]:
        healthy = all(queue.healthy for queue in self._queues.values())
        return [Health(name="message bus", healthy=healthy, reason="" if healthy else "not every handler is running")]

    async def publish(self, message: Message) -> None:
        """Queue one message for the handlers of its topic.

        Raises:
            BrokerUnavailable: a handler of the topic has ``max_queued`` messages outstanding; none of them got this.
            Unroutable: no handler of this process has ever consumed the topic.
        """
        await self.publish_all([encode(message, self.max_message_bytes)])

    async def publish_all(self, messages: Sequence[EncodedMessage]) -> None:
        for message in messages:
            queues = [queue for queue in self._queues.values() if queue.handler.topic == message.topic]
            if not queues:
                raise Unroutable(message.topic)
            for queue in queues:
                if queue.outstanding >= self._max_queued:
                    raise BrokerUnavailable(f"{self._max_queued} messages wait for {queue.handler} already")
            for queue in queues:
                queue.put(Attempt(body=message.body, message_id=message.message_id, number=1))

    async def consume(self, handlers: Sequence[HandlerSpec], dispatch: Dispatch, *, service: str) -> None:
        for handler in handlers:
            queue = self._queues.get(handler.name)
            if queue is None:
                queue = self._queues[handler.name] = _HandlerQueue(self.dead_letters, self._max_retry_delay_s)
            queue.consume(handler, dispatch)

    async def stop_consuming(self, grace: timedelta) -> None:
        grace_s = grace.total_seconds()
        await asyncio.gather(*(queue.stop_consuming(grace_s) for queue in self._queues.values()))

    async def join(self) -> None:
        """Wait until every published message is handled or given up, with those that handlers published meanwhile."""
        while any(queue.outstanding for queue in self._queues.values()):
            for queue in list(self._queues.values()):
                await queue.empty.wait()


@dataclass(order=True, slots=True)
class _Queued:
    # A message that is given back keeps its number, so it comes before all that were published after it.
    number: int
    attempt: Attempt = field(compare=False)


class _HandlerQueue:
    """The messages of one handler, and the tasks that run it."""

    handler: HandlerSpec
    _dispatch: Dispatch

    def __init__(self, dead_letters: deque[DeadLetter], max_retry_delay_s: float) -> None:
        self.outstanding = 0
        self.empty = asyncio.Event()
        self.empty.set()
        self._dead_letters = dead_letters
        self._max_retry_delay_s = max_retry_delay_s
        self._numbers = count()
        # Bounded by `outstanding`, which the bus checks, since what is retried must always find its place.
        self._waiting: asyncio.PriorityQueue[_Queued] = asyncio.PriorityQueue()
        self._delayed: dict[asyncio.TimerHandle, Attempt] = {}
        self._running = Running()
        self._open = asyncio.Event()
        self._workers: list[Supervised] = []

    @property
    def healthy(self) -> bool:
        return all(worker.healthy for worker in self._workers)

    def put(self, attempt: Attempt) -> None:
        self.outstanding += 1
        self.empty.clear()
        self._waiting.put_nowait(_Queued(next(self._numbers), attempt))

    def consume(self, handler: HandlerSpec, dispatch: Dispatch) -> None:
        self.handler, self._dispatch = handler, dispatch
        self._open.set()
        self._workers = [Supervised(f"message handler {handler}", self._work) for _ in range(handler.concurrency)]
        for worker in self._workers:
            worker.start()

    async def stop_consuming(self, grace_s: float) -> None:
        self._open.clear()
        if not await self._running.none(grace_s):
            _log.warning("%s did not finish within %.1f s and is cancelled", self.handler, grace_s)
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        for timer in list(self._delayed):
            timer.cancel()
            self._again(timer)

    async def _work(self, supervised: Supervised) -> None:
        supervised.mark_healthy()
        while True:
            await self._open.wait()
            queued = await self._waiting.get()
            if not self._open.is_set():  # closed while we waited
                self._waiting.put_nowait(queued)
                continue
            with self._running:
                await self._handle(queued)

    async def _handle(self, queued: _Queued) -> None:
        try:
            outcome = await self._dispatch(self.handler, queued.attempt)
        except BaseException:
            self._waiting.put_nowait(queued)
            raise
        if isinstance(outcome, Retry):
            self._delay(queued.attempt, outcome)
            return
        if outcome is not None:
            self._dead_letters.append(DeadLetter(handler=self.handler, attempt=queued.attempt, dead=outcome))
        self.outstanding -= 1
        if self.outstanding == 0:
            self.empty.set()

    def _delay(self, attempt: Attempt, retry: Retry) -> None:
        again = Attempt(body=attempt.body, message_id=attempt.message_id, number=retry.attempt)
        delay_s = min(retry.delay_s, self._max_retry_delay_s)
        timer: asyncio.TimerHandle = asyncio.get_running_loop().call_later(delay_s, lambda: self._again(timer))
        self._delayed[timer] = again

    def _again(self, timer: asyncio.TimerHandle) -> None:
        self._waiting.put_nowait(_Queued(next(self._numbers), self._delayed.pop(timer)))
