"""File descriptors: how many the settings can need, and how many this process may have."""

import resource

from engine.settings.settings import Settings

SPARE = 256  # descriptors for the store, the drop folder, policy servers, probes, consoles and the log
PER_CONNECTION = 3  # the connection out, and a question of each family of addresses to a name server
PER_LOOKUP = 2  # a question of each family of addresses


def needed(settings: Settings) -> int:
    """How many descriptors may be open at a time where every limit of the settings is reached."""
    delivery = settings.delivery
    going_out = PER_CONNECTION * delivery.max_connections + PER_LOOKUP * delivery.max_lookups
    return settings.intake.smtp.max_sessions + going_out + SPARE


def raise_to(needed: int) -> int:
    """Raise the soft limit to what is needed, as far as the hard one allows; give what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft == infinite or soft >= needed:
        return needed if soft == infinite else soft
    wanted = needed if hard == infinite else min(needed, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def note(allowed: int, needed: int) -> str:
    """What an operator should know where too few are allowed, or ""."""
    if allowed >= needed:
        return ""
    return (
        f"only {allowed} open files are allowed, and these settings may need {needed}: raise the limit"
        " (LimitNOFILE= of the service, or ulimit -n)"
    )
