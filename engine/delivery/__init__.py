"""What goes out, when, and over which connection: smarthost.py chooses, relayer.py carries, attempt.py settles."""
