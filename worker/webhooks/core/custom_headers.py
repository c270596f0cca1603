"""Which headers of their own receivers may ask for: none that means something to us, to HTTP or to a proxy. Pure."""

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
# svix- is what libraries for receivers prefer over webhook- where both are there.
_OUR_PREFIXES: Final = ("webhook-", "svix-", "x-afterword-", "proxy-")


def custom_header_fault(name: Any, value: Any) -> str | None:
    """Say in a sentence why a receiver cannot have this header, or None. The value is a secret: it is not quoted."""
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        return f"{_shown(name)} is no header's name; letters, digits and hyphens can be used, {MAX_NAME_CHARS} at most"
    lower = name.lower()
    # Gateways that speak CGI read x_y as x-y.
    dashed = lower.replace("_", "-")
    if dashed in _OURS or dashed.startswith(_OUR_PREFIXES):
        return f"The header {lower} is set by this service; choose another name"
    if not isinstance(value, str) or not _VALUE.fullmatch(value) or len(value) > MAX_VALUE_CHARS:
        return (
            f"The value of the header {lower} cannot be sent; use printable ASCII without spaces at its ends, "
            f"1 to {MAX_VALUE_CHARS} characters"
        )
    return None


def _shown(name: Any) -> str:
    return ascii(name)[:64]
