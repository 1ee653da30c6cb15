"""Publishing: everything that is published while the loop turns once leaves in one pipeline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from jararaca_ws.backends.redis_link import Link, unavailable
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Supervised

__all__ = ["RedisPublisher"]

_log = logging.getLogger("jararaca_ws")

_MAX_PIPELINE = 1000


class _Request:
    """The publishes of one call; done when all have been answered."""

    __slots__ = ("done", "items", "size")

    def __init__(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        self.items = items
        self.size = sum(len(payload) for _, payload in items)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class RedisPublisher:
    """One connection, one task that writes pipelines to it.

    While one pipeline is under way the next one collects, so load makes the batches by itself and a lone publish
    never waits for company.

    Nothing is tried twice: after a lost reply nobody knows whether Redis has published, and a second try could
    deliver twice. The caller learns it as `BackendUnavailable`.

    Attributes:
        pipelines: how many were written.
    """

    def __init__(self, link: Link, *, timeout: timedelta, max_pending_bytes: int) -> None:
        self.pipelines = 0
        self._link = link
        self._timeout_s = timeout.total_seconds()
        self._max_pending_bytes = max_pending_bytes
        self._pending: list[_Request] = []
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        # None until the first publish, and after a failure.
        self._connection: AbstractConnection | None = None
        self._task = Supervised("jararaca_ws Redis publisher", self._work)
        self._running = False

    def start(self) -> None:
        self._running = True
        self._wake = asyncio.Event()
        self._task.start()

    async def stop(self) -> None:
        """Fail what has not been written, and leave no connection behind."""
        self._running = False
        await self._task.stop()
        self._fail(self._take(), BackendUnavailable("it was shut down"))
        await self._disconnect()

    async def publish(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Publish payloads to Redis channels, in order.

        Cancellation leaves open whether they were published.

        Raises:
            BackendUnavailable: at least one was not, or nobody knows.
        """
        if items:
            await self.submit(items)

    def submit(self, items: Sequence[tuple[bytes, bytes]]) -> asyncio.Future[None]:
        """`publish` without waiting: the future has its outcome. At least one item.

        Raises:
            BackendUnavailable: it cannot even be queued.
        """
        if not self._running:
            raise BackendUnavailable("it is not running")
        request = _Request(items)
        if self._pending and self._pending_bytes + request.size > self._max_pending_bytes:
            raise BackendUnavailable(f"{self._pending_bytes} bytes wait to be published already (max_pending_bytes)")
        self._pending.append(request)
        self._pending_bytes += request.size
        self._wake.set()
        return request.done

    async def _work(self, task: Supervised) -> None:
        task.mark_healthy()
        while True:
            await self._wake.wait()
            self._wake.clear()
            requests = self._take()
            try:
                await self._write(requests)
            except BaseException as error:
                await self._disconnect()
                self._fail(requests, _reason(error, self._timeout_s))
                if not isinstance(error, (RedisError, OSError, BackendUnavailable)):  # OSError: TimeoutError too
                    raise

    def _take(self) -> list[_Request]:
        requests, self._pending, self._pending_bytes = self._pending, [], 0
        return requests

    async def _write(self, requests: list[_Request]) -> None:
        """Write the requests in pipelines and answer each as soon as its replies are complete."""
        async with asyncio.timeout(self._timeout_s) as deadline:
            connection = await self._connected()
            waiting = [(request, item) for request in requests for item in request.items]
            refused: dict[_Request, ResponseError] = {}
            for start in range(0, len(waiting), _MAX_PIPELINE):
                deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
                chunk = waiting[start : start + _MAX_PIPELINE]
                await connection.send_packed_command(
                    connection.pack_commands([("PUBLISH", channel, payload) for _, (channel, payload) in chunk]),
                    check_health=False,
                )
                self.pipelines += 1
                for request, item in chunk:
                    try:
                        await connection.read_response()
                    except ResponseError as error:  # Redis refused this one; the replies after it still follow
                        refused.setdefault(request, error)
                    if item is request.items[-1]:
                        _answer(request, refused.get(request))

    async def _connected(self) -> AbstractConnection:
        if self._connection is not None and await _is_stale(self._connection):
            await self._disconnect()
        if self._connection is None:
            self._connection = await self._link.open()
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    def _fail(self, requests: list[_Request], error: BackendUnavailable) -> None:
        for request in requests:
            if not request.done.done():
                request.done.set_exception(error)


def _answer(request: _Request, refusal: ResponseError | None) -> None:
    if request.done.done():  # cancelled by its caller
        return
    if refusal is None:
        request.done.set_result(None)
    else:
        error = unavailable(refusal)
        error.__cause__ = refusal
        request.done.set_exception(error)


async def _is_stale(connection: AbstractConnection) -> bool:
    """Whether the server has hung up, or said something unasked, since the last pipeline."""
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive  # redis-py >= 8, before
    try:
        return bool(await can_read())
    except (RedisError, OSError):
        return True


def _reason(error: BaseException, timeout_s: float) -> BackendUnavailable:
    if isinstance(error, TimeoutError) and not str(error):
        return BackendUnavailable(f"Redis did not answer within {timeout_s:g} s")
    if isinstance(error, asyncio.CancelledError):
        return BackendUnavailable("it was shut down")
    return unavailable(error)
