"""Names of headers and URL parameters that hold a secret. Used for masking settings and stored answers."""

import re
from typing import Final

SECRET_WORDS: Final = ("auth", "cred", "key", "pass", "pwd", "secret", "signature", "token")
"""A name with one of these texts anywhere in it is secret: Authorization, X-Api-Key, sslpassword, X-Amz-Signature."""
SECRET_PARTS: Final = frozenset({"code", "sig"})
"""These must be a whole part of the name, because ordinary words contain them: `x-sig`, but not `X-Design`."""

_PARTS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


def is_secret_name(name: str) -> bool:
    """Say whether the value of this header or URL parameter is a secret. Upper and lower case are the same."""
    lower = name.lower()
    return any(word in lower for word in SECRET_WORDS) or any(
        part.lower() in SECRET_PARTS for part in _PARTS.findall(name)
    )
