from chat import app as microservice

from jararaca_ws import create_http_server

app = create_http_server(microservice, docs_url="/api")
