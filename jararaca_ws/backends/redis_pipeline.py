"""Asking: what is asked for while the loop turns once leaves in one pipeline, again where its answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from jararaca_ws.backends.redis_link import Link, Server, unavailable
from jararaca_ws.backends.redis_scripts import Call, Command, Script
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Backoff, Supervised

__all__ = ["HandBack", "RedisPipeline", "Request", "still_to_do"]

HandBack = Callable[[list["Request"], BaseException], None]

_MAX_PIPELINE = 1000
_FULL_FOR_S = 10.0
"""How long a refusal for want of memory is remembered."""

_PASSING = (ReadOnlyError, MasterDownError, NoScriptError)
"""Refusals that end by themselves, on a new connection at the latest. (LOADING is no refusal to redis-py.)"""

_ELSEWHERE = (AskError, TryAgainError, ClusterDownError)
"""Refusals by a node of a cluster that has not, or not yet, or no longer, what is asked for. (MOVED is an AskError.)"""


class Request:
    """The commands of one call; done when all have been answered.

    Attributes:
        slot: of the keys of all its commands; only where there is a cluster.
        deadline: in the time of the event loop.
    """

    __slots__ = ("commands", "deadline", "done", "refusal", "replies", "size", "slot")

    def __init__(self, commands: Sequence[Command], size: int, timeout_s: float, slot: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.commands = commands
        self.size = size
        self.slot = slot
        self.deadline = loop.time() + timeout_s
        self.done: asyncio.Future[list[Any]] = loop.create_future()
        self.forget()

    def forget(self) -> None:
        """Nothing of it has been answered."""
        self.replies: list[Any] = []
        # The first; None while none of its commands was refused.
        self.refusal: ResponseError | None = None

    def answer(self) -> None:
        if self.done.done():  # cancelled by its caller
            return
        if self.refusal is None:
            self.done.set_result(self.replies)
        else:
            self.fail(self.refusal)

    def fail(self, cause: BaseException) -> None:
        if not self.done.done():
            error = unavailable(cause)
            error.__cause__ = None if error is cause else cause
            self.done.set_exception(error)


class RedisPipeline:
    """One connection, one task that writes pipelines to it.

    While one pipeline is under way the next one collects, so load makes the batches by itself and a lone command
    never waits for company.

    What was not answered, because the connection was lost, or because the server cannot for the moment (it loads its
    data, it became a replica), is tried again in the same order, with backoff, until the timeout. Redis may have done
    it the first time: commands must be such that twice is no harm. What is refused goes to the caller at once.

    Args:
        link: to the server.
        name: for the log.
        timeout: how long a command is tried.
        max_pending_bytes: of payloads that wait; more are refused at once.
        hand_back: for a node of a cluster: gets what was not answered, or belongs to another node, in place of a second
            try here. None: there is no other.

    Attributes:
        pipelines: how many were written.
    """

    def __init__(
        self,
        link: Link,
        *,
        name: str,
        timeout: timedelta,
        max_pending_bytes: int,
        hand_back: HandBack | None = None,
    ) -> None:
        self.pipelines = 0
        self._hand_back = hand_back
        self._link = link
        self._timeout_s = timeout.total_seconds()
        self._max_pending_bytes = max_pending_bytes
        self._pending: list[Request] = []
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        # None until it is first needed, and after a failure.
        self._connection: AbstractConnection | None = None
        self._server = Server()
        # Scripts that the server knows, because this connection has sent them.
        self._known: set[Script] = set()
        # When the server last refused something for want of memory; None where it never has.
        self._full_since: float | None = None
        # What comes during a delay must still have time for a try of its own.
        self._backoff = Backoff(first_s=0.05, max_s=min(1.0, self._timeout_s / 5))
        self._delays = self._backoff.delays()
        self._task = Supervised(f"jararaca_ws Redis {name}", self._work)
        self._running = False
        self._busy = False

    @property
    def healthy(self) -> bool:
        """Whether its task runs, and Redis takes what it is given. Not whether Redis answers: the watchdog knows."""
        return self._task.healthy and not self.full

    @property
    def full(self) -> bool:
        """Whether Redis lately refused something because it is out of memory."""
        since = self._full_since
        return since is not None and asyncio.get_running_loop().time() < since + _FULL_FOR_S

    @property
    def pending_bytes(self) -> int:
        """The bytes of the payloads that wait."""
        return self._pending_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return not self._pending and not self._busy

    def start(self) -> None:
        self._running = True
        self._wake = asyncio.Event()
        self._task.start()

    async def stop(self) -> None:
        """Fail what has not been answered, and leave no connection behind."""
        self._running = False
        await self._task.stop()
        for request in self._take():
            request.fail(BackendUnavailable("it was shut down"))
        await self._disconnect()

    async def execute(self, commands: Sequence[Command], size: int = 0) -> list[Any]:
        """Have commands done, in order; their replies.

        Cancellation leaves open whether they were done.

        Raises:
            BackendUnavailable: at least one was not, or nobody knows.
        """
        return await self.submit(commands, size) if commands else []

    def submit(self, commands: Sequence[Command], size: int = 0) -> asyncio.Future[list[Any]]:
        """`execute` without waiting: the future has its outcome. At least one command.

        Args:
            commands: of which twice is no harm.
            size: the bytes of their payloads.

        Raises:
            BackendUnavailable: it cannot even be queued.
        """
        if not self._running:
            raise BackendUnavailable("it is not running")
        if self._pending and self._pending_bytes + size > self._max_pending_bytes:
            raise BackendUnavailable(f"{self._pending_bytes} bytes wait to be published already (max_pending_bytes)")
        request = Request(commands, size, self._timeout_s)
        self.enqueue(request)
        return request.done

    def enqueue(self, request: Request) -> None:
        """Take a request that was checked, or tried elsewhere, before."""
        self._pending.append(request)
        self._pending_bytes += request.size
        self._wake.set()

    # --- one pipeline after another -----------------------------------------------------------------------------------

    async def _work(self, task: Supervised) -> None:
        task.mark_healthy()
        while True:
            await self._wake.wait()
            self._wake.clear()
            requests = self._take()
            if not requests:
                continue
            self._busy = True
            try:
                await self._write(requests)
                self._delays = self._backoff.delays()
            except (RedisError, OSError, BackendUnavailable) as error:  # OSError: TimeoutError too
                await self._disconnect()
                await self._try_again(requests, error)
            except BaseException as error:
                await self._disconnect()
                for request in requests:
                    request.fail(reason_of(error, self._timeout_s))
                raise
            finally:
                self._busy = False

    def _take(self) -> list[Request]:
        requests, self._pending, self._pending_bytes = self._pending, [], 0
        return requests

    async def _try_again(self, requests: list[Request], error: BaseException) -> None:
        """Put back what was not answered, before all that came since; give up what has been tried long enough."""
        delay_s = next(self._delays)
        # Those that came since have waited too, if not for long: the same holds for them.
        left = still_to_do(requests + self._take(), delay_s, reason_of(error, self._timeout_s))
        if self._hand_back is not None:
            self._hand_back(left, error)
            return
        self._pending, self._pending_bytes = left, sum(request.size for request in left)
        if left:
            self._wake.set()
        await asyncio.sleep(delay_s)

    async def _write(self, requests: list[Request]) -> None:
        """Write the requests in pipelines and answer each as soon as its replies are complete."""
        # A try gets half of the time, so that there is a second one where the connection has silently died.
        patience_s = self._timeout_s / 2
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(min(loop.time() + patience_s, requests[0].deadline)) as deadline:
            connection = await self._connected()
            waiting = [(request, command) for request in requests for command in request.commands]
            for start in range(0, len(waiting), _MAX_PIPELINE):
                if start:
                    deadline.reschedule(loop.time() + patience_s)
                chunk = waiting[start : start + _MAX_PIPELINE]
                await connection.send_packed_command(
                    connection.pack_commands([self._words(command) for _, command in chunk]), check_health=False
                )
                self.pipelines += 1
                for request, _ in chunk:
                    await self._read(connection, request)
                    if len(request.replies) == len(request.commands) and not self._belongs_elsewhere(request):
                        request.answer()
        self._hand_back_with_their_successors([request for request in requests if self._belongs_elsewhere(request)])

    def _belongs_elsewhere(self, request: Request) -> bool:
        return self._hand_back is not None and isinstance(request.refusal, _ELSEWHERE)

    def _hand_back_with_their_successors(self, requests: list[Request]) -> None:
        """Hand requests back, and those that have come since for the same slots, so that they stay in order."""
        if not requests or self._hand_back is None:
            return
        slots = {request.slot for request in requests}
        waiting = self._take()
        for request in waiting:
            if request.slot in slots:
                requests.append(request)
            else:
                self.enqueue(request)
        error = requests[0].refusal
        assert error is not None
        self._hand_back(still_to_do(requests, 0, unavailable(error)), error)

    def _words(self, command: Command) -> tuple[Any, ...]:
        if not isinstance(command, Call):
            return command
        script, keys, arguments = command
        numbered = (len(keys), *keys, self._server.run_id, *arguments)
        if script in self._known:
            return ("EVALSHA", script.sha, *numbered)
        self._known.add(script)
        return ("EVAL", script.source, *numbered)

    async def _read(self, connection: AbstractConnection, request: Request) -> None:
        try:
            request.replies.append(await connection.read_response())
        except _PASSING:
            raise
        except ResponseError as error:  # this one is refused; the replies after it still follow
            request.replies.append(None)
            request.refusal = request.refusal or error
            if isinstance(error, OutOfMemoryError):
                self._full_since = asyncio.get_running_loop().time()

    async def _connected(self) -> AbstractConnection:
        if self._connection is not None and await _is_stale(self._connection):
            await self._disconnect()
        if self._connection is None:
            self._connection = await self._link.open()
            self._server = await self._link.server(self._connection)
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._known.clear()
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _is_stale(connection: AbstractConnection) -> bool:
    """Whether the server has hung up, or said something unasked, since the last pipeline."""
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive  # redis-py >= 8, before
    try:
        return bool(await can_read())
    except (RedisError, OSError):
        return True


def still_to_do(requests: list[Request], delay_s: float, reason: BackendUnavailable) -> list[Request]:
    """Those that may be tried again after a delay, as if for the first time. The others fail for that reason."""
    latest = asyncio.get_running_loop().time() + delay_s
    left: list[Request] = []
    for request in requests:
        request.forget()
        if request.deadline <= latest:
            request.fail(reason)
        elif not request.done.done():
            left.append(request)
    return left


def reason_of(error: BaseException, timeout_s: float) -> BackendUnavailable:
    if isinstance(error, TimeoutError) and not str(error):
        return BackendUnavailable(f"Redis did not answer within {timeout_s:g} s")
    if isinstance(error, asyncio.CancelledError):
        return BackendUnavailable("it was shut down")
    return unavailable(error)
