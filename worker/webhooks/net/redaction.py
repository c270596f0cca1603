"""Removes a receiver's secrets from its stored response, because some servers quote the request in an error."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.net.redaction import SHORTEST_SECRET, redact
from worker.webhooks.core.outcome import SendResult

# Prefixes of the headers that we send to every receiver. webhooks.core.custom_headers refuses them in custom headers.
_OURS: Final = ("webhook-", "x-afterword-")


def unquoted(sent: SendResult, url: str, headers: Mapping[str, str]) -> SendResult:
    """Return the result without the query of the URL and without the values of the receiver's custom headers.

    `headers` are the request's. A secret at the end of the kept body that is cut in two is not found.
    """
    query = urlsplit(url).query
    custom = [value for name, value in headers.items() if not name.lower().startswith(_OURS)]
    texts = {
        query,
        *(value for _, value in parse_qsl(query)),
        *custom,
        *(value.split()[-1] for value in custom if value.strip()),
    }
    texts |= {unquote(text) for text in texts}
    # The longest first, because the query contains its values.
    secrets = tuple(sorted((text.encode() for text in texts if len(text) >= SHORTEST_SECRET), key=len, reverse=True))
    response_headers = {name: _redacted(value, secrets) for name, value in sent.response_headers.items()}
    return replace(sent, response_body=redact(sent.response_body, secrets), response_headers=response_headers)


def _redacted(text: str, secrets: tuple[bytes, ...]) -> str:
    return redact(text.encode("utf-8", "replace"), secrets).decode("utf-8", "replace")
