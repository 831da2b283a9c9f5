"""The commands that speak to a running engine, as the console does: through its control socket."""
