"""A microservice that is being served or worked: its container, its interceptors, its life."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import Any

from jararaca_ws.errors import ConfigurationError, JararacaError
from jararaca_ws.interceptors.base import (
    SERVED_BY,
    AppInterceptor,
    AppInterceptorWithLifecycle,
    AppTransactionContext,
    InterceptorWithWork,
)
from jararaca_ws.microservice.config import Microservice
from jararaca_ws.microservice.container import Container, is_provider

__all__ = ["MicroserviceRuntime"]

_log = logging.getLogger("jararaca_ws")


class MicroserviceRuntime:
    """One application made of a `Microservice`: what an HTTP server or a worker runs.

    Raises:
        UnresolvableDependency: a controller, or an interceptor that is a class, cannot be built.
    """

    def __init__(self, microservice: Microservice) -> None:
        self.microservice = microservice
        self.container = Container(microservice.container)
        self._running = False
        self._ready: list[Any] = [entry for entry in microservice.interceptors if not _is_to_build(entry)]
        self._interceptors: list[AppInterceptor] = self._ready
        for cls in (*microservice.controllers, *microservice.interceptors):
            if isinstance(cls, type):
                self.container.check(cls)
        _check_served(microservice)

    @property
    def name(self) -> str:
        """The name of the microservice."""
        return self.microservice.name

    @property
    def controllers(self) -> Sequence[type]:
        """The controller classes of the microservice."""
        return self.microservice.controllers

    @property
    def interceptors(self) -> Sequence[AppInterceptor]:
        """In the order of the configuration. Those that the container builds are in it only while it runs."""
        return self._interceptors

    def build(self, controller: type) -> Any:
        """A new instance of a controller, for one unit of work.

        Raises:
            ConfigurationError: it depends on an asynchronous resource, and the lifespan has not been entered.
        """
        return self.container.get(controller)

    def unit_of_work(self, app_context: AppTransactionContext) -> AbstractAsyncContextManager[None]:
        """The whole interceptor chain, around one unit of work.

        Exceptions, cancellation included, pass through it as through nested ``async with``: an interceptor may
        swallow one, and then the body of this context manager has not completed although nothing is raised.

        Raises:
            JararacaError: on entering: an interceptor swallowed what another one raised before the body.
            ConfigurationError: an interceptor is built by the container, and the lifespan has not been entered.
        """
        if len(self._interceptors) < len(self.microservice.interceptors):
            raise ConfigurationError(
                f"{self.name} has not been started, so not all of its interceptors are there",
                "enter its lifespan first (in a test: app.router.lifespan_context(app))",
            )
        self.container.new_unit_of_work()
        interceptors = self._interceptors
        if len(interceptors) == 1:
            return interceptors[0].intercept(app_context)
        return _Nested(interceptors, app_context) if interceptors else nullcontext()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Start everything, in order: resources, interceptors' lifecycles, their work. Stop it in reverse.

        What has been started is stopped whatever happens, as at a normal end: an ordinary error of the body or of
        another part is not thrown into it, only cancellation is. The first error is raised, later ones are logged.
        May be entered again after it was left.

        Raises:
            ConfigurationError: it is entered while it runs.
        """
        if self._running:
            raise ConfigurationError(f"{self.name} is running already", "one runtime can be entered once at a time")
        self._running = True
        started: list[AbstractAsyncContextManager[None]] = []
        failure: BaseException | None = None
        try:
            await self._start(started)
            yield
        except BaseException as error:
            failure = error
        failure = await _stop(started, failure)
        self._interceptors = self._ready
        self._running = False
        if failure is not None:
            raise failure

    async def _start(self, started: list[AbstractAsyncContextManager[None]]) -> None:
        async def start(part: AbstractAsyncContextManager[None]) -> None:
            await part.__aenter__()
            started.append(part)

        await start(self.container.resources())
        self._interceptors = [self._built(entry) for entry in self.microservice.interceptors]
        for interceptor in self._interceptors:
            if isinstance(interceptor, AppInterceptorWithLifecycle):
                await start(interceptor.lifecycle(self.microservice, self.container))
        for interceptor in self._interceptors:
            if isinstance(interceptor, InterceptorWithWork):
                await start(interceptor.working(self))

    def _built(self, entry: Any) -> AppInterceptor:
        interceptor = self.container.get(entry) if _is_to_build(entry) else entry
        if not callable(getattr(interceptor, "intercept", None)):
            raise ConfigurationError(
                f"the interceptor {entry!r} provides {interceptor!r}, which has no method intercept(app_context)"
            )
        return interceptor  # type: ignore[no-any-return]


def _check_served(microservice: Microservice) -> None:
    """Refuse a method that nobody would ever call, and two interceptors that would both serve it."""
    if any(is_provider(entry) for entry in microservice.interceptors):
        return  # what it will be is not known before the start
    for mark, (what, interceptor) in SERVED_BY.items():
        serving = [entry for entry in microservice.interceptors if getattr(entry, "serves", None) == mark]
        if len(serving) > 1:
            problem = f"the microservice {microservice.name!r} has {len(serving)} of {interceptor}"
            raise ConfigurationError(problem, "leave all but one out")
        for controller in microservice.controllers if not serving else ():
            if any(hasattr(getattr(controller, name, None), mark) for name in dir(controller)):
                raise ConfigurationError(
                    f"{controller.__module__}.{controller.__qualname__} has {what}, but nothing would ever call it",
                    f"put a {interceptor} into the interceptors of the microservice",
                )


def _is_to_build(entry: object) -> bool:
    return isinstance(entry, type) or is_provider(entry)


class _Nested:
    """Interceptors around one unit of work, nested like ``async with``.

    What an `AsyncExitStack` does, at a third of its memory: a WebSocket holds one for as long as it is open.
    """

    __slots__ = ("_app_context", "_entered", "_interceptors")

    def __init__(self, interceptors: Sequence[AppInterceptor], app_context: AppTransactionContext) -> None:
        self._interceptors = interceptors
        self._app_context = app_context
        self._entered: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> None:
        try:
            for interceptor in self._interceptors:
                one = interceptor.intercept(self._app_context)
                await one.__aenter__()
                self._entered.append(one)
        except BaseException as error:
            if not await self.__aexit__(type(error), error, error.__traceback__):
                raise
            raise JararacaError(
                "an interceptor swallowed the error of another one, so the unit of work did not run"
            ) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        thrown = error
        while self._entered:
            one = self._entered.pop()
            try:
                if await one.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None):
                    error = None
            except BaseException as another:
                error = another
        if error is not None and error is not thrown:
            raise error
        return thrown is not None and error is None


async def _stop(
    started: list[AbstractAsyncContextManager[None]], failure: BaseException | None
) -> BaseException | None:
    """Leave what was started, the last first; the error that is to be raised in the end."""
    for part in reversed(started):
        # Many a lifecycle has no `finally` around its `yield`: an error that is not its own must not skip its end.
        thrown = None if isinstance(failure, Exception) else failure
        try:
            if await part.__aexit__(type(thrown) if thrown else None, thrown, thrown.__traceback__ if thrown else None):
                failure = failure if thrown is None else None
        except BaseException as error:
            if failure is thrown:
                failure = error
            else:  # cancellation goes before an error, otherwise the first goes before the later ones
                failure, other = (failure, error) if isinstance(error, Exception) else (error, failure)
                _log.error("%r failed as well while it was stopped", part, exc_info=other)
    return failure
