"""The stores there are: each test of the contract runs with every one of them."""

import pytest

from tests.unit.queue.support import Opened
from tests.unit.sqlite import support

STORES: dict[str, Opened] = {"sqlite": support.opened}


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a queue in a folder; the same folder again gives the same queue again."""
    return STORES[request.param]
