"""A microservice: controllers, interceptors around their units of work, and the HTTP server made of them."""

from jararaca_ws.microservice.config import Microservice
from jararaca_ws.microservice.container import Container
from jararaca_ws.microservice.controllers import Delete, Get, Patch, Post, Put, RestController, controller_path
from jararaca_ws.microservice.http import create_http_server
from jararaca_ws.microservice.runtime import MicroserviceRuntime

__all__ = [
    "Container",
    "Delete",
    "Get",
    "Microservice",
    "MicroserviceRuntime",
    "Patch",
    "Post",
    "Put",
    "RestController",
    "controller_path",
    "create_http_server",
]
