"""How mail comes in over HTTP: who may post, what a body says, and the counter at which it is taken."""
