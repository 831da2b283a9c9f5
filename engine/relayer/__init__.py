"""A managed relayer: one SMTP conversation that carries a set of messages.

relayer.py decides what is said to whom; session.py holds the conversation; wire.py moves its bytes; transcript.py
remembers it; dialler.py opens connections.
"""
