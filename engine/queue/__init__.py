"""The durable queue: its contract (queue.py) and the stores that keep it (sqlite.py)."""
