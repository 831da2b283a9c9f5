"""Mail that comes from programs of this machine: what the sendmail command hands in."""
