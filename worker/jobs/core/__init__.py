"""Pure rules of a job: they decide, and do no I/O."""
