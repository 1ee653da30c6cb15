from typing import Annotated, Protocol

from dependency_injector import containers, providers
from fastapi import Depends, Header, HTTPException

from jararaca_ws import Get, Microservice, Patch, RestController, create_http_server


class Tasks(Protocol):
    def rename(self, number: int, title: str) -> None: ...
    def title(self, number: int) -> str | None: ...


class TasksInMemory(Tasks):
    def __init__(self) -> None:
        self.titles = {1: "write it down"}

    def rename(self, number: int, title: str) -> None:
        self.titles[number] = title

    def title(self, number: int) -> str | None:
        return self.titles.get(number)


class TaskService:
    """Nothing registers it: it is built by type, and gets what its constructor asks for."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    def rename(self, number: int, title: str) -> None:
        if self.tasks.title(number) is None:
            raise HTTPException(404, "no such task")
        self.tasks.rename(number, title)


class AppContainer(containers.DeclarativeContainer):
    tasks = providers.Singleton(TasksInMemory)  # one for the whole application


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    return accept_language


@RestController("/tasks", tags=["tasks"])
class TaskController:
    def __init__(self, service: TaskService, tasks: Tasks) -> None:
        self.service = service
        self.tasks = tasks

    @Get("/{number}")
    async def show(self, number: int, language: Annotated[str, Depends(language)]) -> dict[str, str | None]:
        return {"title": self.tasks.title(number), "language": language}

    @Patch("/{number}", status_code=204)
    async def rename(self, number: int, title: str) -> None:
        self.service.rename(number, title)


app = create_http_server(
    Microservice(name="tasks", controllers=[TaskController], container=AppContainer()), version="1.2.0"
)
