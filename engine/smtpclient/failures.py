"""Why no session could be had with a target."""

from engine.model.outcome import Outcome
from engine.smtpclient.blame import Blame
from engine.tls.demand import TlsDemand


class SessionError(Exception):
    """No session could be had with this target; `outcome` is transient. `unreachable`: the host did not answer.

    `silent`: to what asked for a connection nobody said a word, neither yes nor no. `blamed`: whose fault it is;
    anything but "host" is ours, and the outcome's cause says so.
    """

    def __init__(
        self, outcome: Outcome, *, unreachable: bool = False, silent: bool = False, blamed: Blame = "host"
    ) -> None:
        super().__init__(outcome.line)
        self.outcome = outcome
        self.unreachable = unreachable
        self.silent = silent
        self.blamed = blamed

    def is_the_hosts(self, demand: TlsDemand) -> bool:
        """Whether the host is of no use to anybody now: no answer, a banner that turns us away, TLS that breaks.

        TLS counts where we or the host itself want it: else a domain could spoil another's host for everybody, by a
        policy that this host does not meet. What comes later, as a login that is refused, may be our fault.
        """
        if self.blamed != "host":
            return False
        if self.unreachable or self.outcome.phase == "greeting":
            return True
        return self.outcome.cause == "tls" and not demand.is_domains


class TlsBroken(SessionError):
    """The handshake failed on a peer that offers STARTTLS. `by_network`: it was cut off, which tells nothing of it."""

    def __init__(self, outcome: Outcome, *, by_network: bool) -> None:
        super().__init__(outcome)
        self.by_network = by_network


class LoopsBack(SessionError):
    """The peer has our own name: it is this relay itself, behind an address that we do not know for ours."""
