"""The wire format of chat-completions endpoints: requests, streams, answers, usage and errors. Pure, no I/O."""
