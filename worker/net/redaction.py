"""Keeps an endpoint's secrets out of stored answers: some servers quote the request in an error."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from worker.core.endpoint import Endpoint
from worker.core.secret_names import is_certain_secret_name

# A shorter "key" is a placeholder, and likely to be an ordinary word of an answer.
SHORTEST_SECRET: Final = 8
REPLACEMENT: Final = b"[redacted]"


def secrets_of(endpoint: Endpoint) -> tuple[bytes, ...]:
    """Return the secrets of the requests to an endpoint, of at least SHORTEST_SECRET characters each.

    These are the endpoint's key and the values of headers and URL parameters that certainly are secret
    (`core.secret_names`), each without its scheme: `Bearer sk-12345678` gives `b"sk-12345678"`.
    """
    values = [value for name, value in endpoint.headers.items() if is_certain_secret_name(name)]
    if endpoint.key is not None:
        values.append(endpoint.key)
    values += [value for name, value in parse_qsl(urlsplit(endpoint.url).query) if is_certain_secret_name(name)]
    words = [value.split()[-1] for value in values if value.strip()]
    return tuple(word.encode() for word in words if len(word) >= SHORTEST_SECRET)


def redact(piece: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return `piece` with `[redacted]` in place of each secret. A secret split between two pieces is not found."""
    for secret in secrets:
        if secret in piece:
            piece = piece.replace(secret, REPLACEMENT)
    return piece
