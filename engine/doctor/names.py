"""Our own name: whether it is a full one, leads to an address, and the address we come from leads back to it.

Who takes mail of strangers looks at that first: RFC 1912 2.1 wants it of every host, RFC 5321 4.1.4 lets it be looked
at, and the largest providers refuse whoever has it not.
"""

import ipaddress

import dns.rdatatype
import dns.reversename

from engine.dns.lookups import DomainNotFound, Lookups, MXError
from engine.dns.mx import MXCalculator, NoExchange
from engine.model.finding import Finding
from engine.settings.settings import is_full_name

_FULL = "write the name that DNS has for this machine in hostname, such as relay.example.net"


def hostname(name: str) -> Finding:
    """Whether our name is one that others can look up (RFC 5321 2.3.5)."""
    if is_full_name(name):
        return Finding(name="hostname", result="ok", text=f"{name} is a full name")
    return Finding(name="hostname", result="bad", text=f'"{name}" is not the full name of a host', todo=_FULL)


async def address(name: str, mx: MXCalculator) -> Finding:
    """Whether our name leads to an address."""
    if not is_full_name(name):
        return Finding(name="address", result="skipped", text=f'"{name}" is not a full name')
    try:
        found = await mx.addresses(name)
    except (DomainNotFound, NoExchange):
        todo = f"have your DNS give {name} the address that this relay sends from (A, AAAA), for many hosts look"
        return Finding(name="address", result="bad", text=f"{name} has no address in the DNS", todo=todo)
    except MXError as error:
        return Finding(name="address", result="warn", text=f"not found out: {error.outcome.text}")
    return Finding(name="address", result="ok", text=f"{name} has {', '.join(found)}")


async def back(name: str, address: str, mx: MXCalculator, lookups: Lookups) -> Finding:
    """Whether an address that we send from has a name (PTR) that leads back to it, and whether it is ours."""
    try:
        _, records = await lookups.follow(dns.reversename.from_address(address), dns.rdatatype.PTR)
    except DomainNotFound:
        records = ()
    except MXError as error:
        return Finding(name="PTR", result="warn", text=f"not found out for {address}: {error.outcome.text}")
    names = [str(record) for record in records]
    if not names:
        todo = f"have whoever gave it to you name it {name}: many hosts take no mail from an address without a name"
        return Finding(name="PTR", result="bad", text=f"{address} has no name", todo=todo)
    called = name if name in names else names[0]
    text = f"{address} is {called}"
    try:
        leads_back = ipaddress.ip_address(address) in map(ipaddress.ip_address, await mx.addresses(called))
    except (DomainNotFound, NoExchange):
        leads_back = False
    except MXError as error:
        return Finding(name="PTR", result="warn", text=f"{text}; whether that leads back: {error.outcome.text}")
    if not leads_back:
        todo = f"have your DNS give {name} this address"
        if called != name:  # it is most often the name that whoever has the network gave it, whose DNS is not ours
            todo = f"have whoever gave it to you name it {name}, and your DNS give {name} this address"
        return Finding(name="PTR", result="bad", text=f"{text}, which does not lead back to it", todo=todo)
    if called != name:
        todo = f'set hostname = "{called}", or have whoever gave you the address name it {name}'
        return Finding(name="PTR", result="warn", text=f"{text}, and this relay calls itself {name}", todo=todo)
    return Finding(name="PTR", result="ok", text=f"{text}, and {called} is {address}")
