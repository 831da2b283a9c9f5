"""How mail comes in: over SMTP (smtp/), through a watched folder (drop/), from programs of this machine (sendmail/)."""
