"""Real parts for demo, dev and tests: an embedded Redis, a fake endpoint."""
