from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from jararaca_ws.errors import ConfigurationError
from jararaca_ws.microservice import Delete, Get, Patch, Post, Put, RestController, controller_path
from jararaca_ws.microservice.controllers import join_paths, rest_methods


def declared(cls: type) -> list[tuple[str, str, str]]:
    return [(name, declaration.http_method, declaration.path) for name, _, declaration in rest_methods(cls)]


@pytest.mark.parametrize(
    ("prefix", "path", "joined"),
    [
        ("/chat", "/{room_id}/message", "/chat/{room_id}/message"),
        ("/tasks", "", "/tasks"),
        ("/tasks", "/", "/tasks/"),
        ("/tasks/", "/done", "/tasks/done"),
        ("/tasks/", "", "/tasks"),
        ("tasks", "done", "/tasks/done"),
        ("", "/done", "/done"),
        ("/", "/done", "/done"),
        ("", "", "/"),
        ("/", "/", "/"),
        ("/a/b", "c/", "/a/b/c/"),
    ],
)
def test_paths_are_joined_with_one_slash(prefix: str, path: str, joined: str) -> None:
    assert join_paths(prefix, path) == joined


def test_the_path_of_a_controller() -> None:
    @RestController("/tasks")
    class Tasks: ...

    class Inheriting(Tasks): ...

    class Undecorated: ...

    assert controller_path(Tasks) == "/tasks"
    assert controller_path(Inheriting) == "/tasks"
    assert controller_path(Undecorated) == ""
    assert controller_path(RestController()(Undecorated)) == ""


def test_decorators_leave_the_class_and_the_method_what_they_are() -> None:
    class Tasks:
        def listed(self) -> str:
            return "listed"

    function = Tasks.listed
    assert RestController("/tasks")(Tasks) is Tasks
    assert Get("/")(function) is function
    assert Tasks().listed() == "listed"


def test_other_class_decorators_stack_in_any_order() -> None:
    def marked(cls: type) -> type:
        cls.marked = True  # type: ignore[attr-defined]
        return cls

    @marked
    @RestController("/inner")
    class Inner: ...

    @RestController("/outer")
    @marked
    class Outer: ...

    assert controller_path(Inner) == "/inner"
    assert controller_path(Outer) == "/outer"


def test_methods_are_found_in_the_order_of_the_source_then_those_of_the_bases() -> None:
    class Base:
        @Get("/base")
        def base(self) -> None: ...

        @Get("/hidden")
        def hidden(self) -> None: ...

        @Get("/moved")
        def moved(self) -> None: ...

    class Tasks(Base):
        @Post("/b")
        @Put("/c")
        def b(self) -> None: ...

        @Patch("/a")
        def a(self) -> None: ...

        def hidden(self) -> None: ...

        @Delete("/elsewhere")
        def moved(self) -> None: ...

    assert declared(Tasks) == [
        ("b", "POST", "/b"),
        ("b", "PUT", "/c"),
        ("a", "PATCH", "/a"),
        ("moved", "DELETE", "/elsewhere"),
        ("base", "GET", "/base"),
    ]


def test_a_wrapping_decorator_may_be_on_either_side() -> None:
    def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class Tasks:
        @Get("/a")
        @wrapping
        def a(self) -> None: ...

        @wrapping
        @Get("/b")
        def b(self) -> None: ...

    assert declared(Tasks) == [("a", "GET", "/a"), ("b", "GET", "/b")]


@pytest.mark.parametrize("decorator", [staticmethod, classmethod])
def test_what_is_no_method_of_instances_is_refused(decorator: Callable[..., Any]) -> None:
    class Outside:
        listed = decorator(Get("/")(lambda *_: None))

    class Inside:
        listed = Get("/")(decorator(lambda *_: None))

    for cls in (Outside, Inside):
        with pytest.raises(ConfigurationError, match=rf"\.listed is a {decorator.__name__}: @Get is for methods"):
            declared(cls)


def test_class_attributes_that_answer_everything_are_no_methods() -> None:
    class Tasks:
        mock = MagicMock()

    assert declared(Tasks) == []


def test_a_decorator_without_parentheses_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'@RestController was given .*: write @RestController\("/path"\)'):
        RestController(type("Tasks", (), {}))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r'@Get was given .*: write @Get\("/path"\)'):
        Get(lambda self: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("decorator", "option"),
    [(Get, "statuscode"), (Get, "methods"), (RestController, "prefix"), (RestController, "lifespan")],
)
def test_an_option_that_fastapi_would_not_take_is_refused(decorator: Callable[..., Any], option: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"@{decorator.__name__}\('/x'\) has no option '{option}': it takes"):
        decorator("/x", **{option: None})
