import os

from fastapi import FastAPI

from jararaca_ws import Microservice, StatusInterceptor, WebSocketInterceptor, create_http_server, status_router

token = os.environ.get("STATUS_TOKEN", "only-for-this-page")

app = create_http_server(Microservice(interceptors=[WebSocketInterceptor(), StatusInterceptor(token=token)]))

# And in a FastAPI application of your own:
web_sockets = WebSocketInterceptor()
plain = FastAPI()
web_sockets.install(plain)
plain.include_router(status_router(web_sockets.manager, token=token), prefix="/status")
