"""The domains of senders: whether their DNS says that this relay may send for them.

Of an SPF record (RFC 7208) only what stands in it is judged, no name that it leads to: no library that is kept can be
given a resolver of ours, and whoever is named by `include` may change what that says at any time.
"""

import ipaddress
from collections.abc import Sequence
from typing import Literal

import dns.rdatatype

from engine.dns.lookups import DomainNotFound, Lookups, MXError, name_of
from engine.model.finding import Finding, Result

MOST_DOMAINS = 10  # of those seen lately, the latest first

Told = Literal["lets", "lets not", "refuses", "not told"]
"""What a record says of an address by itself: it may send; it is named nowhere; others are to refuse it (-all); that
depends on names which were not looked up."""


async def spf(domain: str, addresses: Sequence[str], lookups: Lookups) -> Finding:
    """Whether a domain has one SPF record (RFC 7208 3.1, 4.5), and whether that lets the addresses send."""
    try:
        _, records = await lookups.follow(name_of(domain), dns.rdatatype.TXT)
    except DomainNotFound:
        todo = "send from a domain that is there: nothing can be returned to this one, and many hosts refuse it"
        return Finding(name="SPF", result="bad", text=f"{domain} does not exist in the DNS", todo=todo)
    except MXError as error:
        return Finding(name="SPF", result="warn", text=f"not found out of {domain}: {error.outcome.text}")
    texts = [record.decode("latin-1") for record in records if isinstance(record, bytes)]
    found = [text for text in texts if text.lower().split(" ", 1)[0] == "v=spf1"]
    if not found:
        who = " ".join(map(_mechanism, addresses)) or "ip4:ADDRESS"
        todo = f'have its DNS name who sends for it, as TXT: "v=spf1 {who} -all"'
        return Finding(name="SPF", result="warn", text=f"{domain} has no record, and is trusted less for it", todo=todo)
    if len(found) > 1:
        text = f"{domain} has {len(found)} records, which counts as none (RFC 7208 4.5)"
        return Finding(name="SPF", result="bad", text=text, todo="leave one of them")
    return _judged(domain, addresses, found[0])


def _judged(domain: str, addresses: Sequence[str], record: str) -> Finding:
    told = {address: says(record, address) for address in addresses}
    shut_out: tuple[tuple[Told, Result], ...] = (("refuses", "bad"), ("lets not", "warn"))
    for what, result in shut_out:
        if shut := [address for address in addresses if told[address] == what]:
            todo = f"add {' and '.join(map(_mechanism, shut))} to it, before its all"
            return Finding(name="SPF", result=result, text=f"{domain} does not let {', '.join(shut)} send", todo=todo)
    unknown = [address for address in addresses if told[address] == "not told"]
    if unknown:
        text = f"{domain} has a record; whether what it includes names {', '.join(unknown)} is not looked at"
    elif addresses:
        text = f"{domain} lets {', '.join(addresses)} send"
    else:
        text = f"{domain} has a record; from which address its mail leaves is not known here"
    return Finding(name="SPF", result="ok", text=text)


def says(record: str, address: str) -> Told:
    """What a record says of an address by its own words (RFC 7208 4.6.2, 5): the first that matches counts."""
    ours = ipaddress.ip_address(address)
    depends = False  # on names, which might let it in or keep it out before
    keeps_out = False  # one of those that might do the latter
    for term in record.lower().split()[1:]:
        name, _, value = term.lstrip("+-~?").partition(":")
        qualifier = term[0] if term[0] in "+-~?" else "+"
        if "=" in name:  # a modifier: redirect counts where nothing matches
            depends = depends or name.startswith("redirect=")
            continue
        if name == "all" or (name in ("ip4", "ip6") and _is_in(ours, value)):
            if qualifier == "+":
                return "not told" if keeps_out else "lets"
            if depends:
                return "not told"
            return "refuses" if qualifier == "-" else "lets not"
        if name not in ("ip4", "ip6"):
            depends = True
            keeps_out = keeps_out or qualifier != "+"
    return "not told" if depends else "lets not"


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _mechanism(address: str) -> str:
    return f"ip{6 if ':' in address else 4}:{address}"
