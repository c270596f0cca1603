"""One worker process: its parts, their order at start and stop, and the checks of its database."""
