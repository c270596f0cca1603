"""A job: its row and its whole life, from the message to the recorded answer."""
