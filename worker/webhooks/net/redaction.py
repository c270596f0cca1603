"""Keeps a receiver's secrets out of the stored response: some servers quote the request in an error."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.net.redaction import SHORTEST_SECRET, redact
from worker.webhooks.core.outcome import SendResult

# Headers of a webhook that every receiver is sent; no receiver's own begin so (core.custom_headers).
_OURS: Final = ("webhook-", "x-afterword-")


def unquoted(sent: SendResult, url: str, headers: Mapping[str, str]) -> SendResult:
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
