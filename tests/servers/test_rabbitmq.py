from __future__ import annotations

import pytest

from tests.servers import RabbitMQServer

pytestmark = pytest.mark.rabbitmq


def test_a_killed_node_comes_back_with_its_data(rabbitmq_server: RabbitMQServer) -> None:
    rabbitmq_server.ctl("add_vhost", "kept")

    rabbitmq_server.restart()
    assert "kept" in rabbitmq_server.ctl("list_vhosts").split()
    rabbitmq_server.ctl("delete_vhost", "kept")


def test_ctl_says_what_went_wrong(rabbitmq_server: RabbitMQServer) -> None:
    with pytest.raises(RuntimeError, match="no-such-vhost"):
        rabbitmq_server.ctl("delete_vhost", "no-such-vhost")
