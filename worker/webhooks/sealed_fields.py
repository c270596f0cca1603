"""Seals and opens a receiver's secret columns: its signing keys, its headers, its URL. No SQL, no clock.

    keys     [{"text": "whsec_…", "created_at": "2026-11-23T03:14:15Z", "expires_at": null}, …]
    headers  {"origin": "https://a.example:443", "headers": {"Authorization": "Bearer …"}}
    url      the whole URL, because its query may hold a token

Each is one token of `webhooks.vault`. Open them for one attempt and forget them; no error quotes their content.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from worker.webhooks.core.signature import KeyKind, SigningKey, read_key
from worker.webhooks.vault import CannotOpen, SecretFault, Vault, new_key

KEYS = "keys"
HEADERS = "headers"
URL = "url"


def new_keys(now: datetime) -> tuple[tuple[SigningKey, ...], tuple[str, ...]]:
    """Return the keys of a new receiver, one of each kind, and the hmac secret's text, which is shown once."""
    keys = (new_key(KeyKind.HMAC, now), new_key(KeyKind.ED25519, now))
    return keys, tuple(key.text for key in keys if key.kind is KeyKind.HMAC)


def public_text(keys: Sequence[SigningKey]) -> str | None:
    """Return the column `public_key`: the `whpk_…` of the current ed25519 key."""
    current = [key for key in keys if key.kind is KeyKind.ED25519 and key.expires_at is None]
    return max(current, key=lambda key: key.created_at).public_text if current else None


def seal_keys(vault: Vault, receiver_id: str, keys: Sequence[SigningKey]) -> str:
    """Return the column `keys_sealed`."""
    listed = [
        {"text": key.text, "created_at": key.created_at.isoformat(), "expires_at": _iso(key.expires_at)} for key in keys
    ]
    return vault.seal(receiver_id, KEYS, json.dumps(listed))


def keys_of(vault: Vault, receiver_id: str, sealed: str | None) -> tuple[SigningKey, ...]:
    """Return the keys of a column `keys_sealed`, expired keys too; an empty tuple for None. Raises CannotOpen."""
    if sealed is None:
        return ()
    opened = vault.open(receiver_id, KEYS, sealed)
    try:
        return tuple(
            read_key(key["text"], created_at=_instant(key["created_at"]), expires_at=_expiry(key["expires_at"]))
            for key in json.loads(opened)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    # Outside the except block, because a parser's error keeps the text that it could not read.
    raise _unknown(receiver_id, "keys")


def seal_headers(vault: Vault, receiver_id: str, headers: Mapping[str, str], *, url: str) -> str | None:
    """Return the column `headers_sealed`, None for a receiver without custom headers.

    The headers are bound to the origin of `url`: a changed address in the database must not receive the credentials.
    """
    bound = {"origin": origin_of(url), "headers": dict(headers)}
    return vault.seal(receiver_id, HEADERS, json.dumps(bound)) if headers else None


def headers_of(vault: Vault, receiver_id: str, sealed: str | None, *, url: str) -> dict[str, str]:
    """Return the headers of a column `headers_sealed` for requests to `url`.

    Raises CannotOpen, also if the headers were sealed for another origin than that of `url`.
    """
    if sealed is None:
        return {}
    origin, headers = _open_headers(vault, receiver_id, sealed)
    if origin not in (None, origin_of(url)):
        raise CannotOpen(
            SecretFault.MOVED,
            f"the headers of receiver {receiver_id} were sealed for {origin}, but its address is at {origin_of(url)}; "
            "give the headers again with: afterword webhooks update NAME --header-file FILE",
        )
    return headers


def bind_headers(vault: Vault, receiver_id: str, sealed: str, *, url: str) -> str | None:
    """Seal a token of release 0.1.0, which has no origin, for the origin of `url`; None for a newer token."""
    origin, headers = _open_headers(vault, receiver_id, sealed)
    return seal_headers(vault, receiver_id, headers, url=url) if origin is None else None


def origin_of(url: str) -> str:
    """Return the origin of a URL, always with its port: `https://a.example:443`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or {'http': 80}.get(parts.scheme, 443)}"


def _open_headers(vault: Vault, receiver_id: str, sealed: str) -> tuple[str | None, dict[str, str]]:
    """Return the origin and the headers of a column `headers_sealed`; release 0.1.0 sealed no origin."""
    opened = vault.open(receiver_id, HEADERS, sealed)
    try:
        content: Any = json.loads(opened)
    except ValueError:
        content = None
    origin = None
    if isinstance(content, dict) and isinstance(content.get("headers"), dict):
        origin, content = content.get("origin"), content["headers"]
        if not isinstance(origin, str):
            raise _unknown(receiver_id, "headers")
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise _unknown(receiver_id, "headers")
    return origin, content


def seal_url(vault: Vault, receiver_id: str, url: str) -> tuple[str, str | None]:
    """Return the columns `url`, without the query, and `url_sealed`, None for a URL without a query."""
    shown = shown_url(url)
    return shown, None if shown == url else vault.seal(receiver_id, URL, url)


def seal_shown_url(vault: Vault, receiver_id: str, url: str, sealed: str | None) -> tuple[str, str | None]:
    """Return the columns `url` and `url_sealed`. Seals a job's URL: its receiver was created with the unsealed URL."""
    return seal_url(vault, receiver_id, url) if sealed is None else (url, sealed)


def url_of(vault: Vault, receiver_id: str, url: str, sealed: str | None) -> str:
    """Return the URL for requests, from the columns `url` and `url_sealed`. Raises CannotOpen."""
    return url if sealed is None else vault.open(receiver_id, URL, sealed)


def shown_url(url: str) -> str:
    """Return a URL without its query, which may hold a token."""
    return url.partition("?")[0]


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _expiry(text: str | None) -> datetime | None:
    return None if text is None else _instant(text)


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _unknown(receiver_id: str, column: str) -> CannotOpen:
    return CannotOpen(
        SecretFault.UNKNOWN_FORM,
        f"this worker does not know the form of the sealed {column} of receiver {receiver_id}; "
        "run the release that sealed them",
    )
