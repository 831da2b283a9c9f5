"""What this relay logs in with at upstream hosts: passwords, and tokens that are got anew in time."""
