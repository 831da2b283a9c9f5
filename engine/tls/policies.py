"""MTA-STS policies found, fetched, kept and renewed (RFC 8461 3, 5)."""

import asyncio
import logging
from typing import Protocol, cast

import dns.rdatatype
import msgspec

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.dns.lookups import DomainNotFound, Lookups, MXError, name_of
from engine.queue.contract import KeptPolicy, Standing
from engine.queue.errors import QueueBroken, QueueError
from engine.tls.mta_sts import Policy, PolicyError, announced_id, parse_policy

log = logging.getLogger(__name__)

_RENEW_AFTER = 86_400.0  # seconds at most; RFC 8461 3.3 suggests to renew once a day
_PAUSE = 300.0  # seconds until a policy that could not be had is asked for again (RFC 8461 5.1)
_FAILURES_KEPT = 10_000  # domains
_MOST_FETCHES = 20  # at a time


class Fetch(Protocol):
    """Gets the policy file of a domain."""

    async def __call__(self, domain: str) -> bytes:
        """The file, whole. Raises PolicyError. Bounded in time and size."""
        ...


class PolicyBook:
    """Knows the policy of each domain: the one kept, or a newer one where its record says that there is one.

    A policy is fetched by one task for all who want it; whoever gives up waiting does not end it.
    """

    def __init__(self, lookups: Lookups, standing: Standing, fetch: Fetch, clock: Clock) -> None:
        self._lookups = lookups
        self._standing = standing
        self._fetch = fetch
        self._clock = clock
        self._failed = Kept[str, float](_FAILURES_KEPT)  # domain to when it may be asked again
        self._under_way: dict[str, asyncio.Task[Policy | None]] = {}
        self._room = asyncio.Semaphore(_MOST_FETCHES)

    async def of(self, domain: str) -> Policy | None:
        """The policy in force for a domain; None: it has none. Raises QueueError: without the store nobody knows.

        RFC 8461 3.3: where no newer one can be had, the one kept stays in force until its own end, and where there is
        none, the domain is treated as one without MTA-STS.
        """
        kept = await self._kept(domain)
        if self._failed_lately(domain):
            return kept
        announced = await self._announced(domain)
        if announced is None:
            return kept
        if kept is not None and kept.id == announced:
            if self._is_to_be_renewed(kept):
                self._begin(domain, announced)  # nobody waits for it: the one kept is in force
            return kept
        return await asyncio.shield(self._begin(domain, announced)) or kept

    async def close(self) -> None:
        """End what is being fetched."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _kept(self, domain: str) -> Policy | None:
        kept = await self._standing.sts_policy(domain)
        if kept is None:
            return None
        try:
            return msgspec.json.decode(kept.policy, type=Policy)
        except msgspec.MsgspecError:
            log.error("the policy kept for %s cannot be read: it is fetched anew", domain)
            return None

    async def _announced(self, domain: str) -> str | None:
        """The id that the domain's record gives (RFC 8461 3.1); None where there is none or DNS does not say."""
        try:
            _, records = await self._lookups.follow(name_of(f"_mta-sts.{domain}"), dns.rdatatype.TXT)
        except DomainNotFound:
            return None
        except MXError as error:
            self._fail(domain, str(error))
            return None
        return announced_id(cast(tuple[bytes, ...], records))

    def _begin(self, domain: str, id: str) -> "asyncio.Task[Policy | None]":
        task = self._under_way.get(domain)
        if task is None:
            task = self._under_way[domain] = asyncio.create_task(self._renew(domain, id), name=f"policy of {domain}")
            task.add_done_callback(lambda _: self._under_way.pop(domain, None))
        return task

    async def _renew(self, domain: str, id: str) -> Policy | None:
        """Fetch a policy and keep it; None when it cannot be had. Never raises: several may be waiting, or none."""
        try:
            async with self._room:
                written = parse_policy(await self._fetch(domain))
        except PolicyError as error:
            self._fail(domain, str(error))
            return None
        except Exception:
            log.exception("the MTA-STS policy of %s", domain)
            self._fail(domain, "fault in the relay")
            return None
        now = self._clock.now()
        policy = Policy(
            domain=domain, id=id, mode=written.mode, mx=written.mx, fetched=now, expires=now + written.max_age
        )
        text = msgspec.json.encode(policy).decode()
        try:
            await self._standing.save_sts_policy(KeptPolicy(domain=domain, expires=policy.expires, policy=text))
        except QueueBroken:
            pass  # whatever comes next meets it too, and says so
        except QueueError as error:
            log.warning("the MTA-STS policy of %s is not kept: %s", domain, error)
        return policy  # in force all the same

    def _is_to_be_renewed(self, kept: Policy) -> bool:
        """At half of its life where that is short: whoever keeps us from its server at its end takes it from us."""
        return self._clock.now() - kept.fetched > min(_RENEW_AFTER, (kept.expires - kept.fetched) / 2)

    def _failed_lately(self, domain: str) -> bool:
        until = self._failed.get(domain)
        return until is not None and 0 < until - self._clock.now() < _PAUSE + 1  # more: the clock was set back

    def _fail(self, domain: str, why: str) -> None:
        log.info("the MTA-STS policy of %s cannot be had: %s", domain, why)
        self._failed[domain] = self._clock.now() + _PAUSE
