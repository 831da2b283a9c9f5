"""The name servers: whether they answer, how soon, and whether they validate where the settings count on it."""

import time

import dns.rdatatype

from engine.dns.lookups import DomainNotFound, LookupFailed, Lookups, MXError, name_of
from engine.model.finding import Finding

SIGNED = "ietf.org"  # a domain that has been signed for many years
BOGUS = "dnssec-failed.org"  # one whose signatures are wrong, for whoever wants to see that it is noticed
SLOW = 1.0  # seconds for an answer, beyond which each message is noticeably later for it

_WHOM = "look at dns.nameservers, or at /etc/resolv.conf where it is not set"


async def answers(lookups: Lookups, domain: str = SIGNED) -> Finding:
    """Whether some name server answers, and how soon."""
    begun = time.monotonic()
    try:
        await lookups.follow(name_of(domain), dns.rdatatype.A)
    except DomainNotFound:
        pass  # which is an answer
    except MXError as error:
        return Finding(name="resolver", result="bad", text=error.outcome.text, todo=_WHOM)
    seconds = time.monotonic() - begun
    text = f"answers in {seconds * 1000:.0f} ms"
    if seconds > SLOW:
        todo = "run a resolver on this machine, such as unbound: each domain takes several questions"
        return Finding(name="resolver", result="warn", text=text, todo=todo)
    return Finding(name="resolver", result="ok", text=text)


async def validates(lookups: Lookups, *, signed: str = SIGNED, bogus: str = BOGUS) -> Finding:
    """Whether the name servers call what is signed authentic (AD), and have no answer where signatures are wrong."""
    todo = "use a resolver that validates, on this machine, or set dns.validating = false"
    try:
        found = await lookups.trace(name_of(signed), dns.rdatatype.A)
    except MXError as error:
        return Finding(name="DNSSEC", result="warn", text=f"not found out: {error.outcome.text}")
    if not found.secure:
        text = f"dns.validating is true, and the name servers do not call {signed} authentic, which is signed"
        return Finding(name="DNSSEC", result="bad", text=text, todo=todo)
    try:
        await lookups.trace(name_of(bogus), dns.rdatatype.A)
    except LookupFailed:
        return Finding(name="DNSSEC", result="ok", text=f"{signed} is authentic, and {bogus} is refused as it must be")
    except MXError as error:
        return Finding(name="DNSSEC", result="warn", text=f"{signed} is authentic; of {bogus}: {error.outcome.text}")
    text = f"the name servers answer for {bogus}, whose signatures are wrong"
    return Finding(name="DNSSEC", result="bad", text=text, todo=todo)
