"""Private servers: started by the tests on random ports, stopped by process id. Nothing of the user's is touched."""

from tests.servers.process import OwnedProcess, ServerUnavailable, free_port
from tests.servers.rabbitmq import RabbitMQServer
from tests.servers.redis import RedisServer

__all__ = ["OwnedProcess", "RabbitMQServer", "RedisServer", "ServerUnavailable", "free_port"]
