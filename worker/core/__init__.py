"""Pure functions that decide: they do no I/O, get time and chance as arguments and import the standard library only."""
