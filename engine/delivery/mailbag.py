"""A relayer's mailbag: the messages that it answers for, each until its result is recorded, or it is put back."""

from collections.abc import Callable, Sequence

from engine.delivery.attempt import AttemptManager
from engine.model.claim import Claim
from engine.model.outcome import Outcome
from engine.queue.contract import Queue

_DOMAINS_SHOWN = 100


class Mailbag:
    """What one relayer answers for: `claims`, by message and destination, in the order in which they are sent.

    `done` of the `taken` messages are settled; what was put back is in neither. `domains` are those that there was
    mail for so far (the first hundred). `returned` is called with how many messages were put back.
    """

    def __init__(
        self, claims: Sequence[Claim], queue: Queue, attempts: AttemptManager, *, returned: Callable[[int], None]
    ) -> None:
        self.claims: dict[tuple[int, str], Claim] = {}
        self.domains: list[str] = []
        self.taken = 0
        self.done = 0
        self._queue = queue
        self._attempts = attempts
        self._returned = returned
        self.take(claims)

    def take(self, claims: Sequence[Claim]) -> None:
        """Answer for these as well."""
        for claim in claims:
            self.claims[claim.message, claim.destination] = claim
            if claim.destination not in self.domains and len(self.domains) < _DOMAINS_SHOWN:
                self.domains.append(claim.destination)
        self.taken += len(claims)

    def holds(self, claim: Claim) -> bool:
        """Whether it still answers for a claim."""
        return (claim.message, claim.destination) in self.claims

    def left(self, destination: str | None = None) -> list[Claim]:
        """What is left, of one destination or of all."""
        return [claim for claim in self.claims.values() if destination in (None, claim.destination)]

    # -- results --------------------------------------------------------------------------------------------------

    async def report(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """Record what became of each recipient of a claim. Raises as AttemptManager.report."""
        await self._attempts.report(claim, outcomes)
        self._settled(claim)

    async def report_all(self, destination: str, outcome: Outcome) -> None:
        """Record one outcome for all that is left of a destination. Raises QueueError."""
        for claim in self.left(destination):
            await self.report(claim, [outcome] * len(claim.entries))

    async def report_no_connection(self, outcome: Outcome) -> None:
        """Record for all that is left that no exchange could be reached. Raises QueueError."""
        claims = self.left()
        await self._attempts.no_connection(claims, outcome)
        for claim in claims:
            self._settled(claim)

    async def report_or_keep(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """Record a result that must not be lost, since the peer may have the message. Raises QueueError.

        What the store does not take in time is kept with its result, and reported again at each check: putting it
        back would strike from the record that the peer may have it.
        """
        self.claims.pop((claim.message, claim.destination), None)
        try:
            await self._attempts.report(claim, outcomes)
        except BaseException:
            self._attempts.keep(claim, outcomes)
            raise
        self.done += 1

    async def set_aside(self, claim: Claim, why: str) -> None:
        """Hold a claim that cannot be sent, for someone to see why. Raises QueueError."""
        await self._queue.claims.set_aside(claim, why)
        self._settled(claim)

    def _settled(self, claim: Claim) -> None:
        self.claims.pop((claim.message, claim.destination), None)
        self.done += 1

    # -- untried --------------------------------------------------------------------------------------------------

    async def put_back(self, why: str, destination: str | None = None) -> None:
        """Give back untried what is left, of one destination or of all. Raises QueueError."""
        await self._give_back(self.left(destination), why)

    async def keep(self, count: int, why: str) -> None:
        """Give back untried all but the first `count`. Raises QueueError."""
        await self._give_back(self.left()[count:], why)

    async def _give_back(self, claims: Sequence[Claim], why: str) -> None:
        if not claims:
            return
        await self._queue.claims.put_back(claims, why)
        self._returned(len(claims))
        for claim in claims:
            del self.claims[claim.message, claim.destination]
        self.taken -= len(claims)
