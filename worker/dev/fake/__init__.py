"""A free chat-completions endpoint with the real wire format, invented answers, and faults on request.

`script` has the behaviour for a request, `presets` has scripts by model name, `answers` and `usage` make the JSON,
`plan` makes the bytes and `transmission` sends them. `limits`, `meters` and `limiter` refuse requests, `limit_answers`
makes the headers and the 429s. `ledger` counts, `server` decides, `routes` serves HTTP. The page for users is
ops/fake_endpoint.md.
"""
