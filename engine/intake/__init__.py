"""How mail comes in: over SMTP (smtp.py) and through a watched folder (drop.py)."""
