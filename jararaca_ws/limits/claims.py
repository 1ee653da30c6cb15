"""What this instance holds of what is limited for all instances together, and how it gets more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from jararaca_ws.backends.limits import LimitStore
from jararaca_ws.errors import BackendUnavailable
from jararaca_ws.supervision import Supervised

__all__ = ["Claims"]

_log = logging.getLogger("jararaca_ws")

_MAX_BATCH = 256
"""Claims in one step: Redis does nothing else meanwhile."""

_PATIENCE_S = 1.0
"""How long the store may take, before each instance counts for itself."""

_TICKS = 20
"""In so many steps that is waited for."""

_AWAY_S = 1.0
"""Where it has not answered, it is asked again after that."""

_PARTING_S = 2.0


class _Waiting(NamedTuple):
    limits: Mapping[str, int]
    answer: asyncio.Future[str | None]


class Claims:
    """One instance's claims, in batches: while one is under way the next collects.

    What is told is always how much is held, never that there is more or less of it: a batch that is lost, or done
    twice, is put right by the next. While the store does not answer, each instance counts what it holds itself.

    Args:
        store: what all instances hold.
        ttl_s: for so many seconds after its last sign of life an instance counts.
        fail_open: whether instances count for themselves while the store is away; else nothing is granted.
    """

    def __init__(self, store: LimitStore, ttl_s: float, *, fail_open: bool) -> None:
        self._store = store
        self._beat_s = ttl_s / 3
        self._fail_open = fail_open
        self._held: Counter[str] = Counter()
        # Names of which the store may have another number.
        self._changed: set[str] = set()
        # Whether it may have anything: at first, after an error, and when it has forgotten us.
        self._anew = True
        self._was_told = False
        self._is_away = False
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._task = Supervised("jararaca_ws limits", self._work)
        self._is_running = False

    @property
    def held(self) -> Mapping[str, int]:
        """What this instance holds: a live view."""
        return self._held

    def start(self) -> None:
        self._is_running = True
        self._task.start()

    async def stop(self) -> None:
        """Hold nothing any more, if that can be said quickly; leave no task behind."""
        self._is_running = False
        await self._task.stop()
        for waiting in self._take():
            if not waiting.answer.done():
                waiting.answer.set_exception(BackendUnavailable("it was shut down"))
        if self._is_away or not self._was_told:
            return
        try:
            async with asyncio.timeout(_PARTING_S):
                await self._store.retire()
        except (BackendUnavailable, TimeoutError):
            _log.warning("what this instance held of the limits could not be given back; it is free after the TTL")

    async def claim(self, limits: Mapping[str, int]) -> str | None:
        """Hold one more of each of these names, of which there may be so many in all; None: it is held.

        Otherwise nothing is, and the name is returned of which there are as many. Cancellation holds nothing.

        Raises:
            BackendUnavailable: the store does not answer, and instances may not count for themselves; or nobody would
                ask it, before `start` and after `stop`.
        """
        if not self._is_running:
            raise BackendUnavailable("this instance has not started, or has stopped")
        if self._is_away:
            return self._claim_here(limits)
        waiting = _Waiting(limits, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting.answer.done() and not waiting.answer.cancelled() and waiting.answer.exception() is None:
                # It was answered in the same turn of the loop.
                self.release(limits if waiting.answer.result() is None else ())
            raise

    def release(self, names: Iterable[str]) -> None:
        """Hold one less of each."""
        for name in names:
            self._held[name] -= 1
            if self._held[name] <= 0:
                del self._held[name]
            self._changed.add(name)
        self._wake.set()

    # --- one batch after another --------------------------------------------------------------------------------------

    async def _work(self, task: Supervised) -> None:
        while True:
            self._wake.clear()
            batch = self._take()
            try:
                answers = await self._ask(batch)
            except (BackendUnavailable, TimeoutError) as error:
                self._lose(error, batch)
                await asyncio.sleep(_AWAY_S)
                continue
            except BaseException:
                self._anew = True
                self._waiting[:0] = batch
                raise
            self._is_away = False
            task.mark_healthy()
            self._tell(batch, answers)
            if not self._waiting:
                await self._until_woken()

    async def _until_woken(self) -> None:
        try:
            async with asyncio.timeout(self._beat_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # it is time for a sign of life

    def _take(self) -> list[_Waiting]:
        batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
        return [waiting for waiting in batch if not waiting.answer.done()]

    async def _ask(self, batch: list[_Waiting]) -> list[str | None]:
        claims = [waiting.limits for waiting in batch]
        changed, self._changed = self._changed, set()
        async with _patience():
            if not self._anew:
                answers = await self._store.claim({name: self._held[name] for name in changed}, claims, anew=False)
                if answers is not None:
                    return answers
                _log.warning("the limits were lost: saying again what this instance holds")
            # What is released meanwhile is told with the next batch.
            answers = await self._store.claim(dict(self._held), claims, anew=True)
        self._anew, self._was_told = False, True
        if answers is None:
            raise BackendUnavailable("it does not keep what this instance holds")
        return answers

    def _tell(self, batch: list[_Waiting], answers: list[str | None]) -> None:
        for waiting, full in zip(batch, answers, strict=True):
            if full is None:
                self._held.update(waiting.limits.keys())
            if not waiting.answer.done():
                waiting.answer.set_result(full)
            elif full is None:
                self.release(waiting.limits)  # nobody waits for it any more

    # --- while the store is away --------------------------------------------------------------------------------------

    def _lose(self, error: Exception, batch: list[_Waiting]) -> None:
        if not self._is_away:
            _log.warning(
                "limits are counted by each instance for itself, the backend does not answer: %s",
                str(error) or "no reply",
            )
        self._is_away = self._anew = True
        while batch:
            for limits, answer in batch:
                if answer.done():
                    continue
                try:
                    answer.set_result(self._claim_here(limits))
                except BackendUnavailable as refusal:
                    answer.set_exception(refusal)
            batch = self._take()

    def _claim_here(self, limits: Mapping[str, int]) -> str | None:
        if not self._fail_open:
            raise BackendUnavailable("nobody knows how many connections there are")
        full = next((name for name, limit in limits.items() if self._held[name] >= limit), None)
        if full is None:
            self._held.update(limits.keys())
        return full


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """A timeout of `_PATIENCE_S`, in which a step that takes longer counts as one.

    A loop that is busy with a thousand handshakes reads late what has come in time. Were that taken for silence,
    whoever makes it busy would have each instance count for itself.
    """
    loop = asyncio.get_running_loop()
    step_s = _PATIENCE_S / _TICKS
    async with asyncio.timeout(None) as deadline:
        timers: list[asyncio.TimerHandle] = []

        def tick() -> None:
            if len(timers) == _TICKS:
                deadline.reschedule(loop.time())
            else:
                timers.append(loop.call_later(step_s, tick))

        tick()
        try:
            yield
        finally:
            timers[-1].cancel()
