import pytest
from own_backend import Hub, HubBackend

from jararaca_ws.testing import BACKEND_CONTRACT


@pytest.mark.parametrize("check", BACKEND_CONTRACT, ids=lambda check: check.__name__)
async def test_the_hub_keeps_the_contract(check) -> None:
    hub = Hub()
    await check(lambda: HubBackend(hub))
