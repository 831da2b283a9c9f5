"""Sites without a relay around them."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from engine.base.clock import Clock
from engine.delivery.capacity import Capacity
from engine.delivery.limits import Limits
from engine.delivery.retry import RetryPlan
from engine.delivery.site import Common, Terms
from engine.delivery.sites import Sites
from engine.settings.settings import Limit, Retry


def sites_of(
    clock: Clock,
    *,
    queue: Any = None,
    capacity: Capacity | None = None,
    limits: Sequence[Limit] = (),
    wake: Callable[[], None] = lambda: None,
    **terms: Any,
) -> Sites:
    """Those of a relay with these limits and terms; without a `queue` they may be blocked in memory alone."""
    retries = RetryPlan(Retry(), None)
    common = Common(cast("Any", queue), clock, retries, Limits(limits, clock), Terms(**terms), wake=wake)
    return Sites(common, capacity or Capacity(clock, max_connections=100, max_lookups=100))
