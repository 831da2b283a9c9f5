"""The operator's door: what can be seen and asked (views.py), the server and the client of control.sock."""
