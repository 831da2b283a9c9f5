"""The durable queue: its contract (contract.py), the folder it lives in (spool.py), the store that keeps it."""
