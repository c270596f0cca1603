"""Finds and masks the secrets in a URL: its password, and the values of secret parameters (`core.secret_names`).

Used by `afterword config`, by the error sentences about settings and by the log.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from worker.core.secret_names import is_secret_name

MASK: Final = "***"


def masked_url(url: str) -> str:
    """Return a URL with `***` for its password and secret parameters: `https://u:***@h/?api-key=***`.

    A fragment is masked too. The result is `***` if the URL cannot be parsed.
    """
    parts = _split(url)
    if parts is None:
        return MASK
    if not any(secrets_in(url)) and not parts.fragment:
        return url
    user, at, place = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    netloc = f"{name}{colon}{MASK if password else ''}{at}{place}"
    query = "&".join(_masked_parameter(text) for text in parts.query.split("&"))
    return parts._replace(netloc=netloc, query=query, fragment=MASK if parts.fragment else "").geturl()


def secrets_in(url: str | None) -> Iterator[str]:
    """Yield the password and the secret parameters of a URL, as written and percent-decoded: `a%2Fb` and `a/b`."""
    parts = _split(url) if url else None
    if parts is None:
        return
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    pairs = [text.partition("=") for text in parts.query.split("&")]
    values = [value for name, _, value in pairs if is_secret_name(name)]
    for text in (password, *values):
        if text:
            yield from {text, unquote(text), unquote_plus(text)}


def shown(text: str) -> str:
    """Return a setting's text for an error sentence, with secrets masked. An unreadable URL shows only its scheme."""
    if not re.search(r"://|@", text):
        return repr(text)
    readable = _split(text) is not None and "@" not in (urlsplit(text).path + urlsplit(text).fragment)
    return repr(masked_url(text)) if readable else f"an address that starts with {text.partition('://')[0][:20]!r}"


def _masked_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    return f"{name}{equals}{MASK}" if value and is_secret_name(name) else text


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
