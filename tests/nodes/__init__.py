"""Relays that share one database, what befalls them, and books of what became of each message.

The database, the senders, the peers and the way of each relay to the database are in the tests' own process or
processes, so that what is known of a message does not rest on what the relays say.
"""
