"""The wire format of the chat completions endpoint. Pure."""
