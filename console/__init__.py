"""The operator's console and commands: everything here is a client of the engine's control socket."""
