"""A chat-completions endpoint that costs nothing: same wire, invented answers, every fault on request.

`script` says what one request gets, `presets` are scripts by model name, `answers` and `usage` make the JSON, `ledger`
counts, `server` plays it over HTTP. The page for users is ops/fake_endpoint.md.
"""
