"""The store in SQLite, and all of its SQL."""
