"""Whose a domain is: the part of its name that somebody has registered, by the public suffix list.

Names below that cost whoever has it nothing, so that what is to be fair between domains must not go by names alone.
"""

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

_KEPT = 10_000  # answers


@lru_cache(_KEPT)
def registrable(domain: str) -> str:
    """ "example.co.uk" of "mail.example.co.uk"; what has no such part, as a literal address, stands for itself.

    The list comes with the package that reads it; nothing is fetched. In any thread.
    """
    if domain.startswith("["):
        return domain
    return _suffixes().privatesuffix(domain) or domain


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
