"""Names of headers and URL parameters that hold a secret. Used for masking settings and stored answers."""

from typing import Final

SECRET_WORDS: Final = ("auth", "code", "cred", "key", "pass", "pwd", "secret", "sig", "token")
"""A name with one of these texts in it is masked: Authorization, X-Api-Key, sslpassword, X-Amz-Signature, sigv4."""
CERTAIN_WORDS: Final = (
    "auth", "credential", "key", "passphrase", "passwd", "password", "pwd", "secret", "signature", "token",
)  # fmt: skip
"""Only the value of a name with one of these texts is removed from an answer. A mask too many does no harm in settings,
but an answer is paid for: `X-Cost-Code: marketing` or `X-Bypass-Cache: disabled` must not take that word out of it."""


def is_secret_name(name: str) -> bool:
    """Say whether to mask the value of this header or URL parameter. Upper and lower case are the same."""
    return _has(name, SECRET_WORDS)


def is_certain_secret_name(name: str) -> bool:
    """Say whether the value of this header or URL parameter is a secret beyond doubt: an answer must not repeat it."""
    return _has(name, CERTAIN_WORDS)


def _has(name: str, words: tuple[str, ...]) -> bool:
    lower = name.lower()
    return any(word in lower for word in words)
