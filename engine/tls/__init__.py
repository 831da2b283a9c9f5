"""How safe a connection must be, and why: settings, MTA-STS policies and TLSA records come to one demand for a host."""
