"""One SMTP conversation with a peer: session.py holds it, wire.py moves its bytes, transcript.py remembers it."""
