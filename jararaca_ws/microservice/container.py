"""Instances by type: what a constructor asks for comes from the user's own container, or is built in its turn.

The only module that imports dependency-injector, which has no autowiring by type.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dependency_injector import containers, providers, resources

from jararaca_ws.errors import ConfigurationError, UnresolvableDependency
from jararaca_ws.microservice.parameters import Parameter, as_class, constructor_parameters, is_protocol

__all__ = ["Container", "is_container", "is_provider"]

_T = TypeVar("_T")
_ITERATORS = {Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator}


def is_container(value: object) -> bool:
    """Whether this is an instance of a dependency-injector container."""
    return isinstance(value, containers.Container)


def is_provider(value: object) -> bool:
    """Whether this is a dependency-injector provider."""
    return isinstance(value, providers.Provider)


class _Refused(Exception):
    """Nothing provides the wanted class: who asked for it makes the sentence."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.problem = problem
        self.cure = cure


class Container:
    """Builds instances by type, for one application.

    A constructor parameter is filled with what a provider of the user's container provides: the provider of exactly
    that class, or else the only one of a subclass. Where there is none, a default stays as it is, and a class without
    a default is built by type itself. Builtin classes (``int``, ``str``, ...) are never looked up.

    Every `get` makes a new instance, and new instances of all that it depends on: a controller lives for one unit of
    work, and two parameters of one class get two instances. What must live longer or be shared is a ``Singleton`` of
    the user's container; what is shared within one unit of work is a ``ContextLocalSingleton``.

    A ``Resource`` lives from the start of the application to its end, and is injected as its value even where it is
    asynchronous. A ``ContextLocalResource`` is started and shut down by the user, in an interceptor.
    """

    def __init__(self, user_container: containers.Container | None = None) -> None:
        self._user = containers.DynamicContainer() if user_container is None else user_container
        provided = ((name, provider, _provided(provider)) for name, provider in _named(self._user))
        self._offers = {name: (provider, cls) for name, provider, cls in provided if cls is not None}
        self._context_locals = list(self._user.traverse([providers.ContextLocalSingleton]))
        self._known: dict[type, providers.Provider[Any]] = {}
        self._started = False

    def check(self, cls: type) -> None:
        """Make sure that `get` can build this class and all that it depends on, without building anything.

        Raises:
            UnresolvableDependency: a constructor parameter that nothing provides; or a cycle, named in whole.
            ConfigurationError: the class itself cannot be built.
        """
        self._root(cls)

    def get(self, wanted: type[_T] | providers.Provider[_T]) -> _T:
        """A new instance of a class, or what a provider (that of the user's container, or this one) gives.

        Raises:
            ConfigurationError: as from `check`; or it depends on a ``Resource`` that is not started, or on another
                asynchronous provider.
        """
        provider: Any = wanted
        if isinstance(wanted, type):
            provider = self._known.get(wanted) or self._root(wanted)
        if not self._started and any(not resource.overridden for resource in provider.traverse([providers.Resource])):
            problem = f"{_name(wanted)} depends on a Resource that has not been started"
            raise ConfigurationError(problem, "enter the lifespan of the application first")
        instance: Any = provider()
        if isinstance(instance, asyncio.Future):  # faster than asyncio.isfuture, for each message of a client
            problem = f"{_name(wanted)} is, or depends on, something that is provided asynchronously"
            raise ConfigurationError(problem, "of the asynchronous providers only a Resource can be injected")
        return instance  # type: ignore[no-any-return]

    def new_unit_of_work(self) -> None:
        """Forget the context-local instances that this context has inherited from the one that started it."""
        for provider in self._context_locals:
            provider.reset()

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        """Start the resources of the user's container, shut them down at the end. May be entered again after that."""
        frozen: list[providers.Provider[Any]] = []
        try:
            # Not the context-local ones: what is started here would be seen by every unit of work.
            starting = self._user.init_resources(providers.Resource)
            if starting is not None:
                await starting
            await self._freeze(frozen)
            self._started = True
            yield
        finally:
            self._started = False
            self._forget_async_modes()
            for provider in reversed(frozen):
                provider.reset_last_overriding()
                provider.enable_async_mode()  # tells how it is shut down
            self._forget_singletons_of_resources()
            stopping = self._user.shutdown_resources(providers.Resource)
            if stopping is not None:
                await stopping

    async def _freeze(self, frozen: list[providers.Provider[Any]]) -> None:
        """Put the values of asynchronous resources into Object providers.

        Each would otherwise turn all that depends on it into something that returns a Future.
        """
        for resource in self._user.traverse([providers.Resource]):
            value = resource()
            if asyncio.isfuture(value):
                resource.override(providers.Object(await value))
                resource.reset_async_mode()
                frozen.append(resource)
        self._forget_async_modes()

    def _forget_async_modes(self) -> None:
        # Each remembers whether what it depends on was asynchronous when it was first called.
        for provider in [*self._user.traverse(), *self._known.values()]:
            if not isinstance(provider, providers.Resource):
                provider.reset_async_mode()

    def _forget_singletons_of_resources(self) -> None:
        # They hold a value that is shut down: the next start makes a new one.
        for singleton in self._user.traverse([providers.BaseSingleton]):
            if any(singleton.traverse([providers.Resource])):
                singleton.reset()

    def _root(self, cls: type) -> providers.Provider[Any]:
        try:
            return self._provider(cls, ())
        except _Refused as refused:
            raise ConfigurationError(f"{_name(cls)} {refused.problem}", refused.cure) from None

    def _provider(self, wanted: type, path: tuple[type, ...]) -> providers.Provider[Any]:
        """The provider of a class; ``path`` holds those that are being looked into, the outermost first."""
        if wanted in path:
            cycle = " -> ".join(_name(cls) for cls in (*path[path.index(wanted) :], wanted))
            raise _Refused(f"closes a cycle: {cycle}", "let one of them take what it needs in a method call")
        if wanted not in self._known:
            self._known[wanted] = self._offer(wanted) or self._generated(wanted, (*path, wanted))
        return self._known[wanted]

    def _offer(self, wanted: type) -> providers.Provider[Any] | None:
        """The provider of the user's container for a class; None: it has none."""
        # By name, for protocols too: that a class happens to have the methods does not mean that it is meant.
        kinds = [(name, provider, cls) for name, (provider, cls) in self._offers.items() if wanted in cls.__mro__]
        exact = {name: provider for name, provider, cls in kinds if cls is wanted}
        offers = exact or {name: provider for name, provider, _ in kinds}
        if len(offers) > 1:
            raise _Refused(
                f"could come from any of the providers {', '.join(map(repr, offers))}",
                "ask for the exact class of one of them, or leave only one",
            )
        return next(iter(offers.values()), None)

    def _generated(self, cls: type, path: tuple[type, ...]) -> providers.Provider[Any]:
        _refuse_unbuildable(cls)
        factory = providers.Factory(cls)
        for parameter in constructor_parameters(cls):
            argument = self._argument(cls, parameter, path)
            if argument is not None:
                factory.add_kwargs(**{parameter.name: argument})
        return factory

    def _argument(self, cls: type, parameter: Parameter, path: tuple[type, ...]) -> providers.Provider[Any] | None:
        """The provider for one parameter; None: its default stays."""
        wanted = as_class(parameter.annotation)
        try:
            if wanted is None or wanted.__module__ == "builtins":
                if parameter.has_default:
                    return None
                raise _no_class(parameter.annotation)
            return self._offer(wanted) if parameter.has_default else self._provider(wanted, path)
        except _Refused as refused:
            problem = refused.problem if wanted is None else f"({_name(wanted)}) {refused.problem}"
            raise UnresolvableDependency(cls, parameter.name, problem, refused.cure) from None


def _name(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}" if isinstance(target, type) else repr(target)


def _no_class(annotation: Any) -> _Refused:
    if annotation is inspect.Parameter.empty:
        return _Refused("has neither an annotation nor a default", "annotate it with the class that it takes")
    if isinstance(annotation, type):
        return _Refused(
            "is a plain value without a default",
            "give it a default, or add a provider of the whole class to your container, which passes the value",
        )
    return _Refused(f"is annotated with {annotation}, which is not one class", "annotate it with one class")


def _refuse_unbuildable(cls: type) -> None:
    if is_protocol(cls):
        raise _Refused(
            "is a protocol that no provider provides",
            "add a provider of a class that names the protocol as its base to your container",
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(vars(cls)["__abstractmethods__"]))
        raise _Refused(
            f"is abstract (without {missing}) and no provider provides it",
            "add a provider of a subclass to your container",
        )


def _named(container: Any, prefix: str = "") -> Iterator[tuple[str, providers.Provider[Any]]]:
    """The providers that have a name, those of nested containers included."""
    for name, provider in container.providers.items():
        yield prefix + name, provider
        if isinstance(provider, providers.Container):
            yield from _named(provider.container, f"{prefix}{name}.")


def _provided(provider: providers.Provider[Any]) -> type | None:
    """The class of what a provider provides; None: it does not say."""
    if isinstance(provider, providers.Dependency):
        return as_class(provider.instance_of)
    if isinstance(provider, providers.Object):
        return type(provider.provides)
    if providers.is_delegated(provider):
        return None  # injected as the provider itself
    source = getattr(provider, "provides", None)
    if not isinstance(source, type):
        return _returned(source) if inspect.isroutine(source) else None
    return _returned(source.init) if issubclass(source, (resources.Resource, resources.AsyncResource)) else source


def _returned(function: Callable[..., Any]) -> type | None:
    try:
        hint = get_type_hints(function).get("return")
    except NameError:
        return None  # an annotation that means nothing at run time: found by no type, then
    if get_origin(hint) in _ITERATORS:
        hint = get_args(hint)[0]
    return as_class(hint)
