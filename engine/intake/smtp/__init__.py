"""Mail that comes by SMTP: the listener, its sessions, submission with a login, and what bounds them."""
