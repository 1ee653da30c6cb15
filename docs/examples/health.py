from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from jararaca_ws import (
    AppTransactionContext,
    Health,
    HealthInterceptor,
    Microservice,
    WebSocketInterceptor,
    health_router,
)


class Searching:
    """An interceptor of your own that knows how well it is."""

    index_is_loaded = False

    @asynccontextmanager
    async def intercept(self, app_context: AppTransactionContext) -> AsyncIterator[None]:
        yield

    def health(self) -> Sequence[Health]:
        # From what is known already: nothing is waited for here.
        loaded = self.index_is_loaded
        return [Health(name="search", healthy=loaded, reason="" if loaded else "the index is not loaded yet")]


web_sockets = WebSocketInterceptor()
searching = Searching()
app = Microservice(interceptors=[HealthInterceptor(), web_sockets, searching])


# In a FastAPI application of your own, which it is installed in:
plain = FastAPI()
web_sockets.install(plain, interceptors=[searching])
plain.include_router(health_router(web_sockets, searching), prefix="/health")
