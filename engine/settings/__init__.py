"""What may be set: one typed structure with all defaults, how it is read, and what it says of this machine."""
