"""The operator's door: what can be seen (views.py), what is done (verbs.py), server and client of control.sock."""
