"""A free chat-completions endpoint with the real wire format, invented answers, and faults on request.

`script` has the behaviour for a request, `presets` has scripts by model name, `answers` and `usage` make the JSON,
`plan` makes the bytes, `ledger` counts, `server` serves HTTP. The page for users is ops/fake_endpoint.md.
"""
