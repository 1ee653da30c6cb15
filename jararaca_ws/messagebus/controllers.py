"""Which methods of which controllers handle which messages."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from jararaca_ws.errors import ConfigurationError, quoted
from jararaca_ws.interceptors.base import HANDLER_MARK
from jararaca_ws.messagebus.message import Message, MessageOf
from jararaca_ws.supervision import Backoff

__all__ = ["HandlerSpec", "MessageBusController", "MessageHandler", "collect_handlers"]

_CONTROLLER_MARK = "__jararaca_ws_message_bus_controller__"

_Class = TypeVar("_Class", bound=type)
_Function = TypeVar("_Function", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    message_type: type[Message]
    takes_payload: bool
    timeout: timedelta
    max_attempts: int
    backoff: Backoff
    concurrency: int
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSpec:
    """One message handler of an application.

    Attributes:
        name: unique in the application; part of the name of an event's queue, so renaming a handler makes a new queue.
        controller: the class; an instance is built for each unit of work.
        function: the method, as the class holds it.
        takes_payload: it takes the message itself, not a `MessageOf`.
        timeout: of one attempt, with the interceptors around it.
        backoff: the delays between attempts.
        concurrency: how many messages one process handles at once; 1 keeps the order of the queue.
    """

    name: str
    controller: type
    function: Callable[..., Awaitable[Any]]
    message_type: type[Message]
    takes_payload: bool
    timeout: timedelta
    max_attempts: int
    backoff: Backoff
    concurrency: int

    @property
    def topic(self) -> str:
        return self.message_type.MESSAGE_TOPIC

    @property
    def is_task(self) -> bool:
        return self.message_type.MESSAGE_TYPE == "task"

    def __str__(self) -> str:
        return f"{self.controller.__module__}.{self.controller.__qualname__}.{self.function.__name__}"


def MessageBusController() -> Callable[[_Class], _Class]:
    """Mark a class whose `MessageHandler` methods handle bus messages.

    It stacks with ``@RestController`` in any order; the class stays what it is.
    """

    def mark(cls: _Class) -> _Class:
        setattr(cls, _CONTROLLER_MARK, True)
        return cls

    return mark


def MessageHandler(
    message_type: type[Message],
    *,
    timeout: timedelta = timedelta(seconds=30),
    max_attempts: int = 5,
    backoff: Backoff = Backoff(first_s=1.0, factor=3.0, max_s=60.0),  # noqa: B008, it is frozen
    concurrency: int = 1,
    name: str | None = None,
) -> Callable[[_Function], _Function]:
    """Make an ``async def`` method handle the messages of one class.

    The method takes ``self`` and either ``MessageOf[T]`` or ``T``, by its annotation (without one: `MessageOf`).
    Returning acknowledges the message, once everything that was staged has been accepted. Raising, and running
    longer than ``timeout``, drops what was staged and retries the whole handler after a delay; after
    ``max_attempts`` the message goes to the dead letters with the reason. So a handler can run more than once for
    one message: make its effects idempotent, by `MessageOf.message_id` for instance.

    Args:
        message_type: a `Message` class with a ``MESSAGE_TOPIC``.
        timeout: for one attempt, the interceptors around it included; then the handler is cancelled.
        max_attempts: 1 means that nothing is retried.
        backoff: the delays between attempts; jittered.
        concurrency: how many messages of the queue one process handles at once. 1 handles them one after another in
            the order of the queue (a retried message goes behind those that came meanwhile).
        name: names the handler, and its queue, in place of ``<Controller>.<method>``, so that either can be renamed.

    Raises:
        ConfigurationError: at once, for anything that cannot work, naming the method.
    """

    def mark(function: _Function) -> _Function:
        where = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '?')}"
        _check_options(where, message_type, timeout, max_attempts, concurrency, name)
        options = _Options(
            message_type=message_type,
            takes_payload=_takes_payload(where, _checked(where, function), message_type),
            timeout=timeout,
            max_attempts=max_attempts,
            backoff=backoff,
            concurrency=concurrency,
            name=name,
        )
        setattr(function, HANDLER_MARK, options)
        return function

    return mark


def collect_handlers(controllers: Sequence[type]) -> list[HandlerSpec]:
    """The message handlers of an application, in the order of its controllers and their methods.

    Raises:
        ConfigurationError: a class has handlers but is no ``@MessageBusController``, two handlers have one name, a
            task has two handlers, or one topic is a task here and an event there.
    """
    handlers = [handler for controller in controllers for handler in _handlers_of(controller)]
    by_name: dict[str, HandlerSpec] = {}
    by_topic: dict[str, HandlerSpec] = {}
    for handler in handlers:
        namesake = by_name.setdefault(handler.name, handler)
        if namesake is not handler:
            raise ConfigurationError(
                f"{namesake} and {handler} are both named {handler.name!r}", "give one of them another name="
            )
        other = by_topic.setdefault(handler.topic, handler)
        if other.is_task is not handler.is_task:
            raise ConfigurationError(
                f"the topic {handler.topic!r} is a task in one of {other} and {handler} and an event in the other",
                "give one of the message classes another MESSAGE_TOPIC",
            )
        if handler.is_task and other is not handler:
            raise ConfigurationError(
                f"the task {handler.topic!r} is handled by both {other} and {handler}",
                "exactly one handler gets a task: remove one, or make the message an event",
            )
    return handlers


def _handlers_of(controller: type) -> Iterator[HandlerSpec]:
    # The nearest definition wins, as for any attribute: an override without the decorator handles nothing.
    attributes = {name: value for cls in reversed(controller.__mro__) for name, value in vars(cls).items()}
    for name, function in attributes.items():
        options = getattr(function, HANDLER_MARK, None)
        if not isinstance(options, _Options):
            continue
        if _CONTROLLER_MARK not in vars(controller):
            raise ConfigurationError(
                f"{controller.__module__}.{controller.__qualname__} has the message handler {name} "
                "but is no message-bus controller, so it would never be called",
                "decorate the class with @MessageBusController()",
            )
        yield HandlerSpec(
            name=options.name or f"{controller.__name__}.{name}",
            controller=controller,
            function=function,
            message_type=options.message_type,
            takes_payload=options.takes_payload,
            timeout=options.timeout,
            max_attempts=options.max_attempts,
            backoff=options.backoff,
            concurrency=options.concurrency,
        )


def _check_options(
    where: str, message_type: Any, timeout: Any, max_attempts: int, concurrency: int, name: str | None
) -> None:
    problem = ""
    if not (inspect.isclass(message_type) and issubclass(message_type, Message)):
        problem = f"{quoted(repr(message_type))} is not a subclass of Message"
    elif not hasattr(message_type, "MESSAGE_TOPIC"):
        problem = f"{message_type.__qualname__} has no MESSAGE_TOPIC"
    elif not isinstance(timeout, timedelta) or timeout <= timedelta(0):
        problem = "timeout must be a timedelta above zero"
    elif max_attempts < 1 or concurrency < 1:
        problem = "max_attempts and concurrency must be at least 1"
    elif name is not None and not all(word.isidentifier() and word.isascii() for word in name.split(".")):
        problem = f"name must be dot-separated identifiers, not {quoted(repr(name))}"
    if problem:
        raise ConfigurationError(f"@MessageHandler on {where}: {problem}")


def _checked(where: str, function: object) -> FunctionType:
    problem = ""
    if not isinstance(function, FunctionType):
        raise ConfigurationError(f"@MessageHandler on {where}: it is no plain method but a {type(function).__name__}")
    if not inspect.iscoroutinefunction(function):
        problem = "the method must be `async def`"
    elif hasattr(function, HANDLER_MARK):
        problem = "the method handles another message already: write one method for each message class"
    else:
        try:
            inspect.signature(function).bind(None, None)
        except TypeError:
            problem = "the method must take exactly `self` and the message"
    if problem:
        raise ConfigurationError(f"@MessageHandler on {where}: {problem}")
    return function


def _takes_payload(where: str, function: FunctionType, message_type: type[Message]) -> bool:
    parameter = list(inspect.signature(function).parameters.values())[1]
    if parameter.annotation is inspect.Parameter.empty:
        return False
    try:
        annotation = _resolved(function, parameter.annotation, message_type)
    except Exception as error:
        raise ConfigurationError(
            f"@MessageHandler on {where}: the annotation {quoted(str(parameter.annotation))} cannot be resolved",
            f"{type(error).__name__}: {error}",
        ) from error
    if annotation is MessageOf:
        return False
    wrapped = get_origin(annotation) is MessageOf
    wanted = get_args(annotation)[0] if wrapped else annotation
    if isinstance(wanted, type) and issubclass(message_type, wanted):
        return not wrapped
    raise ConfigurationError(
        f"@MessageHandler on {where}: the parameter {parameter.name!r} is annotated "
        f"{quoted(str(parameter.annotation))}",
        f"annotate it with MessageOf[{message_type.__name__}] or with {message_type.__name__}",
    )


def _resolved(function: FunctionType, annotation: Any, message_type: type[Message]) -> Any:
    """The annotation of the message alone: the others may be there for a type checker only."""
    # A message class made in a function is in no module's namespace; we know it by its own name.
    names = {**function.__globals__, "MessageOf": MessageOf, message_type.__name__: message_type}
    return get_type_hints(SimpleNamespace(__annotations__={"message": annotation}), names, names)["message"]
