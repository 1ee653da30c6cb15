from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pytest
from dependency_injector import containers, providers, resources

from jararaca_ws.errors import ConfigurationError, UnresolvableDependency
from jararaca_ws.microservice import Container

if TYPE_CHECKING:
    from decimal import Decimal

log: list[str] = []


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


class Database:
    def __init__(self, url: str = "sqlite://") -> None:
        self.url = url


class PostgresDatabase(Database): ...


class Tasks:
    def __init__(self, database: Database, limit: int = 5) -> None:
        self.database = database
        self.limit = limit


class TasksController:
    def __init__(self, tasks: Annotated[Tasks, "mark"], *, again: Tasks | None) -> None:
        self.tasks = tasks
        self.again = again


class Clock(Protocol):
    def now(self) -> float: ...


class SystemClock(Clock):
    def now(self) -> float:
        return 1.0


class Repository:
    @abstractmethod
    def load(self) -> None: ...


class AbstractRepository(Protocol):
    @abstractmethod
    def load(self) -> None: ...


class HalfRepository(AbstractRepository, Protocol):
    def save(self) -> None: ...


class Partial(AbstractRepository): ...


class NeedsClock:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class NeedsPartial:
    def __init__(self, partial: Partial) -> None: ...


class NeedsString:
    def __init__(self, url: str) -> None: ...


class NeedsUnion:
    def __init__(self, either: Tasks | Database) -> None: ...


class NeedsUnannotated:
    def __init__(self, thing) -> None: ...  # type: ignore[no-untyped-def]


class NeedsVariadic:
    def __init__(self, **options: Any) -> None: ...


class NeedsUnknown:
    def __init__(self, price: Decimal) -> None: ...


DEFAULT = Database("default")


class Optionals:
    def __init__(self, clock: Clock | None = None, count: int = 3, database: Database = DEFAULT) -> None:
        self.clock = clock
        self.count = count
        self.database = database


class CycleA:
    def __init__(self, b: CycleB) -> None: ...


class CycleB:
    def __init__(self, c: CycleC) -> None: ...


class CycleC:
    def __init__(self, b: CycleB) -> None: ...


class Provides:
    def __init__(self, provides: Database, self_: int = 1) -> None:
        self.provides = provides


def container_of(**named: providers.Provider[Any]) -> Container:
    own = containers.DynamicContainer()
    own.set_providers(**named)
    return Container(own)


class TestByType:
    def test_a_class_and_all_that_it_needs(self) -> None:
        built = Container().get(TasksController)
        assert isinstance(built.tasks.database, Database)
        assert isinstance(built.again, Tasks)
        assert built.tasks.limit == 5

    def test_every_get_and_every_parameter_has_its_own_instance(self) -> None:
        container = Container()
        first, second = container.get(TasksController), container.get(TasksController)
        assert first is not second
        assert first.tasks is not first.again

    def test_defaults_stay_where_nothing_is_provided(self) -> None:
        built = Container().get(Optionals)
        assert (built.clock, built.count, built.database.url) == (None, 3, "default")

    def test_defaults_stay_where_the_class_was_built_by_type_elsewhere(self) -> None:
        container = Container()
        container.get(Tasks)
        assert container.get(Optionals).database is DEFAULT

    def test_defaults_give_way_to_a_provider(self) -> None:
        container = container_of(
            clock=providers.Object(SystemClock()), count=providers.Object(7), url=providers.Object("no"),
            database=providers.Factory(Database, "own"),
        )  # fmt: skip
        built = container.get(Optionals)
        assert isinstance(built.clock, SystemClock)
        assert (built.count, built.database.url) == (3, "own")

    def test_an_implementation_of_a_protocol_is_built(self) -> None:
        assert Container().get(SystemClock).now() == 1.0

    def test_parameter_names_are_free(self) -> None:
        assert isinstance(Container().get(Provides).provides, Database)

    def test_check_builds_nothing(self) -> None:
        def explode() -> Database:
            raise AssertionError("was built")

        container_of(database=providers.Factory(explode)).check(TasksController)


class TestProvidersOfTheUser:
    def test_a_singleton_is_shared(self) -> None:
        container = container_of(database=providers.Singleton(Database, "postgres://"))
        first, second = container.get(Tasks), container.get(Tasks)
        assert first.database is second.database
        assert first.database.url == "postgres://"

    def test_the_only_subclass_is_taken(self) -> None:
        container = container_of(database=providers.Singleton(PostgresDatabase))
        assert isinstance(container.get(Tasks).database, PostgresDatabase)

    def test_the_exact_class_goes_before_a_subclass(self) -> None:
        container = container_of(sub=providers.Factory(PostgresDatabase), exact=providers.Factory(Database))
        assert type(container.get(Tasks).database) is Database

    def test_several_are_ambiguous(self) -> None:
        container = container_of(one=providers.Factory(PostgresDatabase), two=providers.Factory(PostgresDatabase))
        with pytest.raises(
            UnresolvableDependency,
            match=r"Tasks.__init__ parameter 'database' \(.*\.Database\) could come from any of .* 'one', 'two': ask",
        ):
            container.check(Tasks)
        with pytest.raises(ConfigurationError, match=r"\.Database could come from any of the providers 'one', 'two'"):
            container.get(Database)

    def test_a_provider_of_the_class_itself(self) -> None:
        container = container_of(any_name=providers.Factory(NeedsString, url="x"))
        container.check(NeedsString)
        assert isinstance(container.get(NeedsString), NeedsString)

    def test_of_a_nested_container(self) -> None:
        class Inner(containers.DeclarativeContainer):
            database = providers.Singleton(PostgresDatabase)

        class Outer(containers.DeclarativeContainer):
            inner = providers.Container(Inner)
            other = providers.Factory(PostgresDatabase)

        with pytest.raises(UnresolvableDependency, match=r"'inner\.database', 'other'|'other', 'inner\.database'"):
            Container(Outer()).check(Tasks)

    @pytest.mark.parametrize(
        "provider",
        [
            providers.Object(Database("x")),
            providers.Dependency(instance_of=Database, default=Database("x")),
            providers.Callable(Database, "x"),
            providers.ThreadLocalSingleton(Database, "x"),
            providers.ContextLocalSingleton(Database, "x"),
        ],
        ids=lambda provider: type(provider).__name__,
    )
    def test_kinds_of_provider(self, provider: providers.Provider[Database]) -> None:
        assert container_of(database=provider).get(Tasks).database.url == "x"

    def test_a_function_without_an_annotation_is_found_by_no_type(self) -> None:
        container = container_of(clock=providers.Callable(lambda: SystemClock()))
        with pytest.raises(UnresolvableDependency, match="is a protocol that no provider provides"):
            container.check(NeedsClock)

    def test_a_function_provides_what_it_is_annotated_with(self) -> None:
        def make() -> Clock:
            return SystemClock()

        container = container_of(clock=providers.Singleton(make))
        assert isinstance(container.get(NeedsClock).clock, SystemClock)

    def test_a_function_with_an_unknown_annotation_is_found_by_no_type(self) -> None:
        def make() -> Decimal:
            return 1  # type: ignore[return-value]

        with pytest.raises(UnresolvableDependency, match="protocol that no provider provides"):
            container_of(clock=providers.Factory(make)).check(NeedsClock)

    def test_providers_that_say_nothing_are_left_alone(self) -> None:
        clock = providers.Singleton(SystemClock)
        container = container_of(
            clock=clock,
            configuration=providers.Configuration(),
            delegate=providers.Delegate(clock),
            delegated=providers.DelegatedFactory(SystemClock),
            attribute=clock.provided.zone,
            listed=providers.List(clock),
        )
        assert isinstance(container.get(NeedsClock).clock, SystemClock)

    def test_an_override_counts_even_when_it_comes_late(self) -> None:
        own = containers.DynamicContainer()
        own.database = providers.Singleton(Database)
        container = Container(own)
        container.check(Tasks)
        with own.database.override(providers.Object(PostgresDatabase("fake"))):
            assert container.get(Tasks).database.url == "fake"
        assert container.get(Tasks).database.url == "sqlite://"

    def test_get_calls_a_provider_that_it_is_given(self) -> None:
        assert Container().get(providers.Factory(Database, "given")).url == "given"


class TestRefusals:
    @pytest.mark.parametrize(
        ("cls", "said"),
        [
            (
                NeedsClock,
                r"NeedsClock.__init__ parameter 'clock' \(.*Clock\) is a protocol .*: add a provider of a class",
            ),
            (NeedsPartial, r"NeedsPartial.__init__ parameter 'partial' \(.*Partial\) is abstract \(without load\)"),
            (
                NeedsString,
                r"NeedsString.__init__ parameter 'url' \(builtins.str\) is a plain value .*: give it a default",
            ),
            (
                NeedsUnion,
                r"NeedsUnion.__init__ parameter 'either' is annotated with .*Tasks \| .*, which is not one class",
            ),
            (NeedsUnannotated, r"parameter 'thing' has neither an annotation nor a default: annotate it"),
            (NeedsVariadic, r"NeedsVariadic.__init__ parameter '\*\*options' cannot be given by name"),
            (NeedsUnknown, r"NeedsUnknown.__init__ parameter 'price' is annotated with 'Decimal', which its module"),
        ],
    )
    def test_name_the_class_the_parameter_and_the_cure(self, cls: type, said: str) -> None:
        with pytest.raises(UnresolvableDependency, match=said) as raised:
            Container().check(cls)
        assert raised.value.target is cls

    def test_deep_down_the_class_that_asks_is_named(self) -> None:
        class Controller:
            def __init__(self, needing: NeedsClock) -> None: ...

        Controller.__init__.__annotations__["needing"] = NeedsClock
        with pytest.raises(UnresolvableDependency, match=r"NeedsClock.__init__ parameter 'clock'"):
            Container().check(Controller)

    def test_a_cycle_is_named_in_whole(self) -> None:
        said = (
            r"CycleC.__init__ parameter 'b' \(.*CycleB\) closes a cycle: "
            r"[\w.]*\.CycleB -> [\w.]*\.CycleC -> [\w.]*\.CycleB: let one of them"
        )
        with pytest.raises(UnresolvableDependency, match=said):
            Container().check(CycleA)

    def test_an_abstract_root(self) -> None:
        with pytest.raises(ConfigurationError, match=r"test_container\.Partial is abstract"):
            Container().check(Partial)
        with pytest.raises(ConfigurationError, match=r"test_container\.HalfRepository is a protocol"):
            Container().get(HalfRepository)

    def test_a_failed_check_leaves_nothing_half_known(self) -> None:
        container = Container()
        for _ in range(2):
            with pytest.raises(UnresolvableDependency):
                container.check(NeedsClock)


async def asynchronous_database() -> AsyncIterator[Database]:
    log.append("up")
    yield Database("async")
    log.append("down")


def synchronous_clock() -> Iterator[SystemClock]:
    log.append("clock up")
    yield SystemClock()
    log.append("clock down")


class DatabaseResource(resources.AsyncResource[Database]):
    async def init(self) -> Database:
        return Database("class")

    async def shutdown(self, resource: Database | None) -> None:
        log.append("class down")


class NeedsBoth:
    def __init__(self, database: Database, clock: Clock, tasks: Tasks) -> None:
        self.database = database
        self.clock = clock
        self.tasks = tasks


class Own(containers.DeclarativeContainer):
    database = providers.Resource(asynchronous_database)
    clock = providers.Resource(synchronous_clock)
    tasks = providers.Singleton(Tasks, database=database)


class TestResources:
    async def test_values_are_injected_and_never_futures_and_it_can_be_entered_again(self) -> None:
        container = Container(Own())
        container.check(NeedsBoth)
        for _ in range(2):
            async with container.resources():
                built = container.get(NeedsBoth)
                assert (built.database.url, built.clock.now()) == ("async", 1.0)
                assert built.tasks is container.get(NeedsBoth).tasks
                assert built.tasks.database is built.database
                assert built.database is container.get(NeedsBoth).database
                assert sorted(log) == ["clock up", "up"]
            assert sorted(log) == ["clock down", "clock up", "down", "up"]
            log.clear()

    async def test_a_singleton_without_resources_outlives_them(self) -> None:
        own = Own()
        own.lasting = providers.Singleton(PostgresDatabase)
        container = Container(own)
        seen = []
        for _ in range(2):
            async with container.resources():
                seen.append(container.get(PostgresDatabase))
        assert seen[0] is seen[1]

    async def test_a_resource_class(self) -> None:
        container = container_of(database=providers.Resource(DatabaseResource))
        async with container.resources():
            assert container.get(Tasks).database.url == "class"
        assert log == ["class down"]

    async def test_what_needs_one_is_refused_before_the_start_and_after_the_end(self) -> None:
        container = Container(Own())

        def refused() -> None:
            with pytest.raises(ConfigurationError, match=r"NeedsBoth depends on a Resource .* enter the lifespan"):
                container.get(NeedsBoth)

        refused()
        assert log == []
        async with container.resources():
            assert container.get(NeedsBoth).database.url == "async"
        refused()

    async def test_any_other_asynchronous_provider_is_refused(self) -> None:
        async def connect() -> Database:
            return Database("async")

        container = container_of(database=providers.Factory(connect))
        async with container.resources():
            with pytest.raises(
                ConfigurationError, match=r"Tasks is, or depends on, something .* asynchronously: of the"
            ):
                container.get(Tasks)

    async def test_a_resource_that_needs_another_through_a_factory(self) -> None:
        async def cache(tasks: Tasks) -> AsyncIterator[PostgresDatabase]:
            yield PostgresDatabase(f"cache of {tasks.database.url}")

        class Deep(containers.DeclarativeContainer):
            database = providers.Resource(asynchronous_database)
            tasks = providers.Factory(Tasks, database=database)
            cache_ = providers.Resource(cache, tasks=tasks)

        own = Deep()
        container = Container(own)
        for _ in range(2):
            async with container.resources():
                assert container.get(Tasks).database.url == "async"
                assert container.get(providers.Factory(Tasks, own.cache_)).database.url == "cache of async"

    async def test_without_a_container_or_resources(self) -> None:
        for container in (Container(), container_of(clock=providers.Singleton(SystemClock))):
            async with container.resources():
                assert container.get(Database).url == "sqlite://"

    async def test_one_that_fails_to_start_shuts_the_others_down(self) -> None:
        async def failing() -> AsyncIterator[Clock]:
            raise OSError("no clock")
            yield SystemClock()

        own = Own()
        own.clock.override(providers.Resource(failing))
        started = Container(own).resources()
        with pytest.raises(OSError, match="no clock"):
            await started.__aenter__()
        assert log == ["up", "down"]

    async def test_a_double_of_a_test_is_left_in_its_place(self) -> None:
        own = Own()
        own.database.override(providers.Object(Database("double")))
        container = Container(own)
        assert container.get(providers.Factory(Tasks, own.database)).database.url == "double"
        async with container.resources():
            assert container.get(Tasks).database.url == "double"
        assert own.database().url == "double"
        assert "up" not in log


class TestUnitOfWork:
    async def test_a_context_local_instance_is_not_inherited(self) -> None:
        container = container_of(database=providers.ContextLocalSingleton(Database))
        before = container.get(Tasks).database

        async def unit_of_work() -> tuple[Database, Database]:
            container.new_unit_of_work()
            return container.get(Tasks).database, container.get(Tasks).database

        one, two = await asyncio.gather(unit_of_work(), unit_of_work())
        assert one[0] is one[1]
        assert two[0] is two[1]
        assert len({id(before), id(one[0]), id(two[0])}) == 3

    async def test_a_context_local_resource_is_not_started(self) -> None:
        container = container_of(clock=providers.ContextLocalResource(synchronous_clock))
        async with container.resources():
            assert log == []
            assert container.get(NeedsClock).clock.now() == 1.0
            assert log == ["clock up"]


async def test_resources_leave_when_the_body_fails() -> None:
    container = Container(Own())

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with container.resources():
            yield

    with pytest.raises(ValueError, match="body"):
        async with running():
            raise ValueError("body")
    assert sorted(log) == ["clock down", "clock up", "down", "up"]
