"""Asking the DNS: look-ups, mail exchanges in their order, and the marks of the bad ones."""
