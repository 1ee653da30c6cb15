from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress

import pytest

from jararaca_ws.errors import StageFull, UnitOfWorkOver
from jararaca_ws.staging import MAX_STAGED_BYTES, Stage, Staged


@asynccontextmanager
async def staged(
    flush: Callable[[list[str]], Awaitable[None]], what: str = "a message was sent", cure: str = "use send_now"
) -> AsyncIterator[Stage[str]]:
    stage: Stage[str] = Stage(what, cure)
    async with Staged(stage, flush, nullcontext(), nullcontext()):
        yield stage


class Flushed:
    """Collects what is flushed, one list per flush."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.error = error

    async def __call__(self, items: list[str]) -> None:
        self.batches.append(items)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    def staged(self):
        return staged(self)


async def test_success_flushes_everything_once_and_in_order():
    flushed = Flushed()
    async with flushed.staged() as stage:
        for item in "abc":
            stage.add(item)
            assert flushed.batches == []
    assert flushed.batches == [["a", "b", "c"]]


async def test_nothing_staged_means_no_flush():
    flushed = Flushed()
    async with flushed.staged():
        pass
    assert flushed.batches == []


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_failure_drops_everything_and_passes_through(error: BaseException):
    flushed = Flushed()
    raised: BaseException | None = None
    try:
        async with flushed.staged() as stage:
            stage.add("a")
            raise error
    except BaseException as caught:
        raised = caught
    assert raised is error
    assert flushed.batches == []


async def test_cancelling_the_task_drops_everything():
    flushed = Flushed()
    staging = asyncio.Event()

    async def unit_of_work() -> None:
        async with flushed.staged() as stage:
            stage.add("a")
            staging.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(unit_of_work())
    await staging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flushed.batches == []


async def test_a_flush_that_fails_fails_the_unit_of_work():
    flushed = Flushed(error=RuntimeError("the server said no"))
    with pytest.raises(RuntimeError, match="the server said no"):
        async with flushed.staged() as stage:
            stage.add("a")
    assert flushed.batches == [["a"]]


@pytest.mark.parametrize("end", [None, ValueError, asyncio.CancelledError])
async def test_adding_after_the_end_says_what_to_do(end: type[BaseException] | None):
    flushed = Flushed()
    kept: Stage[str] | None = None
    with suppress(ValueError, asyncio.CancelledError):
        async with flushed.staged() as stage:
            kept = stage
            if end is not None:
                raise end
    assert kept is not None
    with pytest.raises(UnitOfWorkOver, match=r"a message was sent after its unit of work had ended.*: use send_now"):
        kept.add("late")
    assert flushed.batches == []


async def test_what_is_added_while_the_flush_runs_is_refused_not_lost():
    refused: list[bool] = []

    async def flush(items: list[str]) -> None:
        with pytest.raises(UnitOfWorkOver):
            stage.add("too late")
        refused.append(True)

    async with staged(flush, what="x", cure="y") as stage:
        stage.add("a")
    assert refused == [True]


async def test_what_one_unit_of_work_holds_back_is_bounded():
    flushed: list[list[str]] = []

    async def flush(items: list[str]) -> None:
        flushed.append(items)

    async with staged(flush, what="it was sent", cure="use send_now()") as stage:
        stage.add("large", MAX_STAGED_BYTES - 1)
        with pytest.raises(StageFull, match=r"send_now"):
            stage.add("too much", 2)
        stage.add("fits", 1)
    assert flushed == [["large", "fits"]]


async def test_what_is_bound_ends_with_the_body_or_with_the_flush():
    seen: list[str] = []

    class Bound:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            seen.append(f"{self.name} bound")

        def __exit__(self, *_: object) -> None:
            seen.append(f"{self.name} ended")

    async def flush(items: list[str]) -> None:
        seen.append("flushed")
        raise RuntimeError("on purpose")

    stage: Stage[str] = Stage("x", "y")
    with pytest.raises(RuntimeError, match="on purpose"):
        async with Staged(stage, flush, Bound("outer"), Bound("inner")):
            stage.add("a")
    assert seen == ["outer bound", "inner bound", "inner ended", "flushed", "outer ended"]


async def test_without_a_stage_nothing_is_flushed():
    async def flush(items: list[str]) -> None:
        raise AssertionError

    async with Staged(None, flush, nullcontext(), nullcontext()):
        await asyncio.sleep(0)
