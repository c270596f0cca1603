"""Pure rules of a delivery: they decide, and do no I/O."""
