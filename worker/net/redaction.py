"""Keeps secrets out of everything that is kept of an answer: some servers quote what they were sent in an error."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.core.endpoint import Endpoint
from worker.webhooks.core.outcome import Sent

# A shorter "key" is a placeholder, and likely to be a word of an answer.
SHORTEST_SECRET: Final = 8
REPLACEMENT: Final = b"[redacted]"
_SECRET_NAMES: Final = ("auth", "key", "token", "secret")
# Headers of a webhook that every receiver is sent; no receiver's own begin so (core.custom_headers).
_OURS: Final = ("webhook-", "x-afterword-")


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


def unquoted(sent: Sent, url: str, headers: Mapping[str, str]) -> Sent:
    """Return what came of a webhook without the query of its URL and the values of the receiver's own headers.

    `headers` are those of the request. One that the kept start of the body cuts in two is not seen.
    """
    query = urlsplit(url).query
    own = [value for name, value in headers.items() if not name.lower().startswith(_OURS)]
    texts = {
        query,
        *(value for _, value in parse_qsl(query)),
        *own,
        *(value.split()[-1] for value in own if value.strip()),
    }
    texts |= {unquote(text) for text in texts}
    # The longest first: a query holds its values.
    long = sorted((text.encode() for text in texts if len(text) >= SHORTEST_SECRET), key=len, reverse=True)
    secrets = tuple(long)
    told = {name: _redacted(value, secrets) for name, value in sent.response_headers.items()}
    return replace(sent, response_body=redact(sent.response_body, secrets), response_headers=told)


def _redacted(text: str, secrets: tuple[bytes, ...]) -> str:
    return redact(text.encode("utf-8", "replace"), secrets).decode("utf-8", "replace")


def redact(piece: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """Return `piece` without any of `secrets` in it; one that is split between two pieces is not seen."""
    for secret in secrets:
        if secret in piece:
            piece = piece.replace(secret, REPLACEMENT)
    return piece
