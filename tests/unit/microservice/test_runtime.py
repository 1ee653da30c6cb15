from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dependency_injector import containers, providers

from jararaca_ws.errors import ConfigurationError, JararacaError, UnresolvableDependency
from jararaca_ws.interceptors.base import AppTransactionContext, MessageBusTransactionData, Runtime
from jararaca_ws.microservice import Container, Microservice, MicroserviceRuntime

from .serving import Around, Recording


class Database: ...


class Tasks:
    def __init__(self, database: Database) -> None:
        self.database = database

    async def handle(self) -> None: ...


CONTEXT = AppTransactionContext(
    transaction_data=MessageBusTransactionData(topic="t", message=None, message_id="1", attempt=1),
    controller=Tasks,
    handler=Tasks.handle,
)


def runtime_of(*interceptors: Any, container: containers.Container | None = None) -> MicroserviceRuntime:
    return MicroserviceRuntime(
        Microservice(controllers=[Tasks], interceptors=interceptors, container=container, name="tasks")
    )


class Living(Recording):
    """Has all that an interceptor can have. Its `fails` names the step that fails."""

    def __init__(self, name: str, log: list[Any], fails: str = "") -> None:
        super().__init__(name, log)
        self.fails = fails
        self.given: list[Any] = []

    def step(self, step: str) -> None:
        self.log.append(f"{step} {self.name}")
        if step == self.fails:
            raise ValueError(f"{step} {self.name}")

    # Without try/finally, as many are written.
    @asynccontextmanager
    async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
        self.given = [app, container]
        self.step("start")
        yield
        self.step("stop")

    @asynccontextmanager
    async def working(self, runtime: Runtime) -> AsyncIterator[None]:
        self.given.append(runtime)
        self.step("work")
        yield
        self.step("rest")


@pytest.fixture
def log() -> list[Any]:
    return []


def test_what_cannot_be_built_is_refused_at_once() -> None:
    class Needing:
        def __init__(self, url: str) -> None: ...

        def intercept(self, app_context: Any) -> Any: ...

    Needing.__init__.__annotations__["url"] = str
    with pytest.raises(UnresolvableDependency, match="parameter 'url'"):
        runtime_of(Needing)
    with pytest.raises(UnresolvableDependency, match="parameter 'url'"):
        MicroserviceRuntime(Microservice(controllers=[Needing]))


def test_is_what_the_hooks_of_interceptors_are_given() -> None:
    runtime: Runtime = runtime_of()
    assert runtime.name == "tasks"
    assert runtime.controllers == (Tasks,)
    built = runtime.build(Tasks)
    assert isinstance(built.database, Database)
    assert built is not runtime.build(Tasks)


class TestUnitOfWork:
    async def test_the_first_interceptor_is_the_outermost(self, log: list[Any]) -> None:
        async with runtime_of(Recording("a", log), Recording("b", log)).unit_of_work(CONTEXT):
            log.append("body")
        assert log == ["+a", "+b", "body", "-b", "-a"]

    async def test_without_interceptors(self) -> None:
        with pytest.raises(ValueError, match="body"):
            async with runtime_of().unit_of_work(CONTEXT):
                raise ValueError("body")

    async def test_an_interceptor_is_told_what_it_goes_around(self, log: list[Any]) -> None:
        async def around(app_context: AppTransactionContext) -> AsyncIterator[None]:
            log.append(app_context)
            yield

        async with runtime_of(Around(around)).unit_of_work(CONTEXT):
            assert log == [CONTEXT]

    @pytest.mark.parametrize("error", [ValueError("body"), asyncio.CancelledError(), KeyboardInterrupt()])
    async def test_what_is_raised_passes_through_all_of_them(self, log: list[Any], error: BaseException) -> None:
        with pytest.raises(type(error)) as raised:
            async with runtime_of(Recording("a", log), Recording("b", log)).unit_of_work(CONTEXT):
                raise error
        assert raised.value is error
        name = type(error).__name__
        assert log == ["+a", "+b", f"!b {name}", f"!a {name}"]

    async def test_an_error_on_entering_is_seen_by_the_outer_ones(self, log: list[Any]) -> None:
        async def refusing(_: AppTransactionContext) -> AsyncIterator[None]:
            raise PermissionError
            yield

        runtime = runtime_of(Recording("a", log), Around(refusing), Recording("c", log))
        with pytest.raises(PermissionError):
            async with runtime.unit_of_work(CONTEXT):
                log.append("body")
        assert log == ["+a", "!a PermissionError"]

    async def test_an_error_on_leaving_fails_the_unit_of_work(self, log: list[Any]) -> None:
        async def flushing(_: AppTransactionContext) -> AsyncIterator[None]:
            yield
            raise ConnectionError

        with pytest.raises(ConnectionError):
            async with runtime_of(Recording("a", log), Around(flushing)).unit_of_work(CONTEXT):
                log.append("body")
        assert log == ["+a", "body", "!a ConnectionError"]

    async def test_an_interceptor_may_swallow(self, log: list[Any]) -> None:
        async def swallowing(_: AppTransactionContext) -> AsyncIterator[None]:
            try:
                yield
            except ValueError:
                log.append("swallowed")

        async with runtime_of(Recording("a", log), Around(swallowing)).unit_of_work(CONTEXT):
            raise ValueError
        assert log == ["+a", "swallowed", "-a"]

    async def test_a_body_that_was_never_entered_is_not_taken_for_success(self) -> None:
        async def swallowing(_: AppTransactionContext) -> AsyncIterator[None]:
            try:
                yield
            except PermissionError as swallowed:
                assert swallowed.args  # noqa: PT017

        async def refusing(_: AppTransactionContext) -> AsyncIterator[None]:
            raise PermissionError("no")
            yield

        with pytest.raises(JararacaError, match="the unit of work did not run") as raised:
            async with runtime_of(Around(swallowing), Around(refusing)).unit_of_work(CONTEXT):
                pytest.fail("entered")
        assert isinstance(raised.value.__cause__, PermissionError)

    async def test_context_local_instances_are_new_in_each(self) -> None:
        own = containers.DynamicContainer()
        own.database = providers.ContextLocalSingleton(Database)
        runtime = runtime_of(container=own)
        seen = []
        for _ in range(2):
            async with runtime.unit_of_work(CONTEXT):
                assert runtime.build(Tasks).database is runtime.build(Tasks).database
                seen.append(runtime.build(Tasks).database)
        assert seen[0] is not seen[1]


class TestLifespan:
    async def test_enters_in_order_and_leaves_in_reverse(self, log: list[Any]) -> None:
        async def resource() -> AsyncIterator[Database]:
            log.append("resource up")
            yield Database()
            log.append("resource down")

        own = containers.DynamicContainer()
        own.database = providers.Resource(resource)
        a, b = Living("a", log), Living("b", log)
        runtime = runtime_of(a, Recording("neither", log), b, container=own)
        async with runtime.lifespan():
            log.append("body")
        started = ["resource up", "start a", "start b", "work a", "work b"]
        stopped = ["rest b", "rest a", "stop b", "stop a", "resource down"]
        assert log == [*started, "body", *stopped]
        assert a.given == [runtime.microservice, runtime.container, runtime]
        assert isinstance(runtime.container, Container)

    async def test_can_be_entered_again_but_not_twice_at_once(self, log: list[Any]) -> None:
        runtime = runtime_of(Living("a", log))
        for _ in range(2):
            async with runtime.lifespan():
                with pytest.raises(ConfigurationError, match="tasks is running already"):
                    await runtime.lifespan().__aenter__()
        assert log == ["start a", "work a", "rest a", "stop a"] * 2

    @pytest.mark.parametrize(
        ("step", "stopped"),
        [("start", ["stop a"]), ("work", ["rest a", "stop c", "stop b", "stop a"])],
    )
    async def test_a_failure_half_way_leaves_what_was_entered(
        self, log: list[Any], step: str, stopped: list[str]
    ) -> None:
        failing = Living("b", log, fails=step)
        runtime = runtime_of(Living("a", log), failing, Living("c", log))
        with pytest.raises(ValueError, match=f"{step} b"):
            await runtime.lifespan().__aenter__()
        assert log[log.index(f"{step} b") + 1 :] == stopped
        failing.fails = ""
        log.clear()
        async with runtime.lifespan():
            assert log == ["start a", "start b", "start c", "work a", "work b", "work c"]

    async def test_one_that_fails_to_stop_keeps_no_other_from_stopping(
        self, log: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        runtime = runtime_of(Living("a", log, "stop"), Living("b", log, "rest"), Living("c", log, "stop"))
        with caplog.at_level(logging.ERROR, "jararaca_ws"), pytest.raises(ValueError, match="rest b"):
            async with runtime.lifespan():
                log.clear()
        assert log == ["rest c", "rest b", "rest a", "stop c", "stop b", "stop a"]
        logged = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
        assert logged == ["stop c", "stop a"]

    async def test_an_error_of_the_body_is_raised_and_everything_is_stopped(self, log: list[Any]) -> None:
        with pytest.raises(KeyError, match="body"):
            async with runtime_of(Living("a", log)).lifespan():
                raise KeyError("body")
        assert log == ["start a", "work a", "rest a", "stop a"]

    async def test_cancellation_is_thrown_into_what_was_entered_and_goes_on(self, log: list[Any]) -> None:
        class Cancellable(Recording):
            @asynccontextmanager
            async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
                async with self.intercept(CONTEXT):
                    yield

        entered = asyncio.Event()

        async def run() -> None:
            async with runtime_of(Cancellable("a", log), Living("b", log)).lifespan():
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["+a", "start b", "work b", "!a CancelledError"]

    async def test_a_lifecycle_may_turn_cancellation_into_what_caused_it(self) -> None:
        class Background:
            @asynccontextmanager
            async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self.fail())
                    yield

            @asynccontextmanager
            async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
                yield

            async def fail(self) -> None:
                raise ConnectionError("lost")

        with pytest.raises(ExceptionGroup) as raised:
            async with runtime_of(Background()).lifespan():
                await asyncio.Event().wait()
        assert raised.group_contains(ConnectionError, match="lost")

    async def test_cancellation_while_stopping_goes_before_an_error(
        self, log: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        class CancelledStop(Living):
            def step(self, step: str) -> None:
                super().step(step)
                if step == "stop":
                    raise asyncio.CancelledError

        runtime = runtime_of(Living("a", log), CancelledStop("b", log), Living("c", log, "stop"))
        with pytest.raises(asyncio.CancelledError):
            async with runtime.lifespan():
                log.clear()
        assert log[:5] == ["rest c", "rest b", "rest a", "stop c", "stop b"]
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["stop c"]

    async def test_a_lifecycle_cannot_swallow_the_failure_of_another_one(self, log: list[Any]) -> None:
        class Indifferent(Recording):
            def lifecycle(self, app: Any, container: Any) -> Any:
                return self

            async def __aenter__(self) -> None: ...

            async def __aexit__(self, *_: object) -> bool:
                return True

        with pytest.raises(ValueError, match="start b"):
            await runtime_of(Indifferent("a", log), Living("b", log, "start")).lifespan().__aenter__()

    async def test_a_lifecycle_may_swallow_its_own_cancellation(self, log: list[Any]) -> None:
        class Swallowing(Recording):
            @asynccontextmanager
            async def lifecycle(self, app: Any, container: Any) -> AsyncIterator[None]:
                try:
                    yield
                except asyncio.CancelledError:
                    self.log.append("swallowed")

        async with runtime_of(Living("a", log), Swallowing("b", log)).lifespan():
            raise asyncio.CancelledError
        # The work of a saw the cancellation, its lifecycle did not.
        assert log == ["start a", "work a", "swallowed", "stop a"]


class Built(Recording):
    def __init__(self, database: Database) -> None:
        super().__init__("built", [])
        self.database = database


class TestInterceptorsOfTheContainer:
    async def test_are_built_while_it_runs_in_their_place(self, log: list[Any]) -> None:
        own = containers.DynamicContainer()
        own.recording = providers.Factory(Recording, "provided", log)
        first, last = Recording("first", log), Recording("last", log)
        runtime = runtime_of(first, Built, own.recording, last, container=own)
        assert runtime.interceptors == [first, last]
        with pytest.raises(ConfigurationError, match="tasks has not been started, so not all of its interceptors"):
            runtime.unit_of_work(CONTEXT)
        generations = []
        for _ in range(2):
            async with runtime.lifespan():
                assert [type(one) for one in runtime.interceptors] == [Recording, Built, Recording, Recording]
                assert isinstance(runtime.interceptors[1].database, Database)  # pyright: ignore[reportAttributeAccessIssue]
                generations.append(runtime.interceptors[1])
                async with runtime.unit_of_work(CONTEXT):
                    assert log == ["+first", "+provided", "+last"]
            log.clear()
            assert runtime.interceptors == [first, last]
        assert generations[0] is not generations[1]

    async def test_get_the_values_of_resources(self) -> None:
        async def resource() -> AsyncIterator[Database]:
            yield database

        database = Database()
        own = containers.DynamicContainer()
        own.database = providers.Resource(resource)
        runtime = runtime_of(Built, container=own)
        async with runtime.lifespan():
            assert runtime.interceptors[0].database is database  # type: ignore[attr-defined]

    async def test_a_provider_of_something_else_is_refused_when_it_is_called(self, log: list[Any]) -> None:
        runtime = runtime_of(Living("a", log), providers.Factory(Database))
        with pytest.raises(ConfigurationError, match=r"provides <.*Database object .* has no method intercept"):
            await runtime.lifespan().__aenter__()
        assert log == []
