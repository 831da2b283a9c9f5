"""When mail has had its time: one rule, which the store goes by and whatever is shown."""


def is_given_up(
    *, now: float, expires: float, due: float, attempts: int, blocked_until: float, unreached_at: float, kept: bool
) -> bool:
    """Whether mail that waits is returned at `now` without a further try (RFC 5321 4.5.4.1).

    `kept`: its destination, or the relay, is suspended, or operators have marked all of its hosts bad. `unreached_at`
    is when no connection could be had to its destination last: with a dead host, ten messages are tried in its stead.
    """
    if expires > now:
        return False
    if attempts:
        return due > now or blocked_until > now or kept
    return blocked_until > now and unreached_at >= expires
