"""A webhook delivery: its row and its whole life, from the event to the recorded response."""
