from __future__ import annotations

from uuid import uuid4

import pytest

from tests.rabbitmq.applications import Broker
from tests.servers import RabbitMQServer


@pytest.fixture
def broker(rabbitmq_server: RabbitMQServer) -> Broker:
    rabbitmq_server.start()  # a test that failed may have left it killed
    return Broker(rabbitmq_server.url, f"test-{uuid4().hex[:8]}")
