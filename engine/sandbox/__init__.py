"""An internet on loopback for the demo and the tests: DNS, mail exchanges of every temper, traffic."""
