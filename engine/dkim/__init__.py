"""Signatures of the domains that mail is of (DKIM, RFC 6376 and RFC 8463), and the keys they are made with."""
