"""Keeps secrets out of everything that is kept of an answer: some servers quote what they were sent in an error."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from worker.core.endpoint import Endpoint

# A shorter "key" is a placeholder, and likely to be a word of an answer.
SHORTEST_SECRET: Final = 8
REPLACEMENT: Final = b"[redacted]"
_SECRET_NAMES: Final = ("auth", "key", "token", "secret")


def secrets_of(endpoint: Endpoint) -> tuple[bytes, ...]:
    """Return the key, and what headers and parameters whose names speak of a key hold, without a scheme ("Bearer")."""
    values = [value for name, value in endpoint.headers.items() if _is_secret(name)]
    if endpoint.key is not None:
        values.append(endpoint.key)
    values += [value for name, value in parse_qsl(urlsplit(endpoint.url).query) if _is_secret(name)]
    words = [value.split()[-1] for value in values if value.strip()]
    return tuple(word.encode() for word in words if len(word) >= SHORTEST_SECRET)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_NAMES)


def redact(piece: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return `piece` without any of `secrets` in it; one that is split between two pieces is not seen."""
    for secret in secrets:
        if secret in piece:
            piece = piece.replace(secret, REPLACEMENT)
    return piece
