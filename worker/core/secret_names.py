"""Names of headers and URL parameters that hold a secret. Used for masking settings, the log and stored answers."""

from typing import Final

SECRET_WORDS: Final = ("auth", "code", "cred", "key", "pass", "pwd", "secret", "sig", "token")
"""A name with one of these words in it is secret: Authorization, X-Api-Key, sslpassword, X-Amz-Signature."""


def is_secret_name(name: str) -> bool:
    """Say whether the value of this header or URL parameter is a secret. Upper and lower case are the same."""
    lower = name.lower()
    return any(word in lower for word in SECRET_WORDS)
