"""What security a host's mail demands: the settings, raised by MTA-STS and DANE, lowered by nothing but experience."""

import time

from msgspec import Struct
from msgspec.structs import replace

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.text import clean
from engine.dns.lookups import Lookups
from engine.queue.contract import Standing
from engine.settings.settings import Route, Settings, TlsRules
from engine.tls.dane import Dane
from engine.tls.demand import LEVELS, HostNotAllowed, TlsDemand
from engine.tls.mta_sts import Policy
from engine.tls.policies import PolicyBook
from engine.tls.policy_files import HTTPS, HttpsFetch
from engine.tls.tlsa import TlsaLookup

BROKEN_SECONDS = 3600.0  # a host whose opportunistic TLS broke is tried without for as long
_BROKEN_KEPT = 10_000  # hosts


def tls_policy(
    settings: Settings, lookups: Lookups, standing: Standing, clock: Clock, *, https_port: int = HTTPS
) -> "TlsPolicy":
    """The policy that the settings ask for. Without a resolver that validates there is no DANE (RFC 7672 1.3)."""
    rules = settings.tls
    refused = settings.delivery.refuse_networks
    fetch = HttpsFetch(lookups, port=https_port, ca_file=rules.ca_file, refused=refused)
    return TlsPolicy(
        rules,
        clock,
        policies=PolicyBook(lookups, standing, fetch, clock) if rules.mta_sts else None,
        tlsa=TlsaLookup(lookups) if rules.dane is not False and settings.dns.validating else None,
    )


class _Broken(Struct, frozen=True):
    """Since when a host's TLS is known to be broken, and what was seen."""

    since: float
    why: str


class TlsPolicy:
    """Says for each host what its mail demands. `policies` None: no MTA-STS; `tlsa` None: no DANE."""

    def __init__(
        self, rules: TlsRules, clock: Clock, *, policies: PolicyBook | None = None, tlsa: TlsaLookup | None = None
    ) -> None:
        self._clock = clock
        self._ca_file = rules.ca_file
        self._destinations = {rule.domain: rule for rule in rules.destination}
        self._policies = policies
        self._tlsa = tlsa
        self._broken = Kept[str, _Broken](_BROKEN_KEPT)

    async def demand(self, destination: str, host: str, *, port: int = 25, route: Route | None = None) -> TlsDemand:
        """What the connection to `host` must be like for mail to `destination`, and why.

        May ask DNS and fetch a policy; bounded in time. Raises MXError, whose outcome is transient, when the host is
        not to be tried (HostNotAllowed, SecurityUnknown, or its addresses cannot be had), and QueueError when the store
        does not say which policy is in force.
        """
        demand = self.by_settings(destination, route)
        if demand.level == "none":
            return demand
        if self._policies is not None and route is None and not destination.startswith("["):
            policy = await self._policies.of(destination)  # of the mail's domain, not of its exchanges (RFC 8461 2)
            if policy is not None:
                demand = _by_mta_sts(demand, policy, host)
        if self._tlsa is not None and not _is_address(host):
            found = await self._tlsa.of(destination, host, port, by_mx=route is None)
            if found is not None:
                demand = _by_dane(demand, found)
        return demand if demand.is_must else self._by_experience(demand, host)

    def broke(self, host: str, why: str) -> None:
        """Remember that a host's TLS broke, where it was taken only as offered, and that it could do without."""
        self._broken[host] = _Broken(self._clock.now(), clean(why, 200))

    async def close(self) -> None:
        """End what is under way."""
        if self._policies is not None:
            await self._policies.close()

    def by_settings(self, destination: str, route: Route | None) -> TlsDemand:
        """What the settings alone demand: all that counts for a host that an operator named instead."""
        own = self._destinations.get(destination)
        if route is None:
            own = own or self._destinations.get("*")
            if own is None:
                return TlsDemand(ca_file=self._ca_file)
            return TlsDemand(level=own.level, why=_setting_of(own.domain), ca_file=own.ca_file or self._ca_file)
        demand = TlsDemand(
            level=route.level,
            why=f"the route of {route.domain}" if route.level != "opportunistic" else "",
            ca_file=route.ca_file or self._ca_file,
        )
        if own is not None and LEVELS.index(own.level) > LEVELS.index(route.level):
            return replace(demand, level=own.level, why=_setting_of(own.domain), ca_file=own.ca_file or demand.ca_file)
        return demand

    def _by_experience(self, demand: TlsDemand, host: str) -> TlsDemand:
        """RFC 7435 4: opportunistic security goes on without what does not work."""
        broken = self._broken.get(host)
        if broken is None:
            return demand
        if not broken.since <= self._clock.now() < broken.since + BROKEN_SECONDS:  # or the clock was set back
            del self._broken[host]
            return demand
        since = time.strftime("%H:%M:%S UTC", time.gmtime(broken.since))
        return replace(demand, level="none", why=f"it broke at {since} ({broken.why}), for an hour it is done without")


def _by_mta_sts(demand: TlsDemand, policy: Policy, host: str) -> TlsDemand:
    """RFC 8461 5: enforce keeps mail from hosts that are not named or not proved; testing is only remarked on."""
    what = f"MTA-STS policy of {policy.domain} ({policy.mode})"
    if policy.mode == "none":
        return demand
    if policy.mode == "testing":
        return replace(demand, trial=what if policy.names(host) else f"{what} does not name {host}")
    if not policy.names(host):
        raise HostNotAllowed(f"{what} does not name {host}")
    if demand.level == "verified":
        return demand
    return replace(demand, level="verified", why=what, is_domains=True)


def _by_dane(demand: TlsDemand, found: Dane) -> TlsDemand:
    """RFC 7672 2.2: usable records prove the host, unusable ones still forbid clear text.

    MTA-STS and settings that want an authority's word get it besides: neither overrides the other (RFC 8461 2).
    """
    if not found.records:
        if demand.is_must:
            return demand
        return replace(demand, level="required", why=f"DANE: no usable TLSA record among those of {found.owner}")
    what = f"DANE: TLSA records of {found.owner}"
    if demand.level == "verified":
        return replace(demand, why=f"{demand.why}; {what}", dane=replace(found, and_authorities=True))
    return replace(demand, level="verified", why=what, dane=found)


def _setting_of(domain: str) -> str:
    return f"the setting tls.destination of {domain}"


def _is_address(host: str) -> bool:
    return host.startswith("[") or ":" in host or host.rpartition(".")[2].isdigit()
