"""Checks a receiver's custom headers: no name that this service, HTTP or a proxy uses. Pure."""

import re
from typing import Any, Final

MAX_NAME_CHARS: Final = 128
MAX_VALUE_CHARS: Final = 4096

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?", re.ASCII)
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
# Receivers' libraries prefer svix- headers to webhook- headers if a request has both.
_OUR_PREFIXES: Final = ("webhook-", "svix-", "x-afterword-", "proxy-")


def custom_header_fault(name: Any, value: Any) -> str | None:
    """Return a sentence why a receiver cannot have this header, or None. The sentence never quotes the secret value."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        return f"{_printable(name)} is not a header name; use letters, digits and hyphens, at most {MAX_NAME_CHARS}"
    lower = name.lower()
    # CGI gateways read x_y as x-y.
    dashed = lower.replace("_", "-")
    if dashed in _OURS or dashed.startswith(_OUR_PREFIXES):
        return f"The header {lower} is set by this service; choose another name"
    if not isinstance(value, str) or not _VALUE.fullmatch(value) or len(value) > MAX_VALUE_CHARS:
        return (
            f"The value of the header {lower} cannot be sent; use printable ASCII without spaces at its ends, "
            f"1 to {MAX_VALUE_CHARS} characters"
        )
    return None


def _printable(name: Any) -> str:
    return ascii(name)[:64]
