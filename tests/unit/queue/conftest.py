"""The stores there are: each test of the contract runs with every one of them."""

import pytest

from tests import postgres as server
from tests.unit.postgres import support as postgres
from tests.unit.queue.support import Opened
from tests.unit.sqlite import support as sqlite

STORES: dict[str, Opened] = {"sqlite": sqlite.opened, "postgres": postgres.opened}
NEEDS = {"postgres": pytest.mark.skipif(bool(server.why_not()), reason=server.why_not() or "it is there")}


@pytest.fixture(params=[pytest.param(name, marks=NEEDS.get(name, ())) for name in STORES])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens a queue in a folder; the same folder again gives the same queue again."""
    return STORES[request.param]
