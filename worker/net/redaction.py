"""Keeps an endpoint's key out of everything that is kept of its answers: some gateways quote it in an error."""

from typing import Final

from worker.core.endpoint import Endpoint

# A shorter "key" is a placeholder, and likely to be a word of an answer.
SHORTEST_SECRET: Final = 8
REPLACEMENT: Final = b"[redacted]"
_SECRET_NAMES: Final = ("auth", "key", "token", "secret")


def secrets_of(endpoint: Endpoint) -> tuple[bytes, ...]:
    """Return the key and the values of the extra headers whose names speak of one, without their scheme ("Bearer")."""
    values = [value for name, value in endpoint.headers.items() if any(word in name.lower() for word in _SECRET_NAMES)]
    if endpoint.key is not None:
        values.append(endpoint.key)
    words = [value.split()[-1] for value in values if value.strip()]
    return tuple(word.encode() for word in words if len(word) >= SHORTEST_SECRET)


def redact(piece: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return `piece` without any of `secrets` in it; one that is split between two pieces is not seen."""
    for secret in secrets:
        if secret in piece:
            piece = piece.replace(secret, REPLACEMENT)
    return piece
