"""Tells whether two requests are the same one: the second half of an idempotency key."""

import hashlib
import json
from typing import Any

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode


def fingerprint(value: Any) -> str:
    """Hash a parsed JSON value: 64 hexadecimal digits, SHA-256 of its canonical text.

    Key order, whitespace and the way a character is escaped do not matter; integers count exactly, other numbers as
    doubles (`1e2` is `100.0`, but `100` is another number). Errors: ValueError for NaN, an infinity or a lone
    surrogate (none of them can be sent), RecursionError for a value nested very deeply.
    """
    return hashlib.sha256(_encode(value).encode()).hexdigest()


def text_fingerprint(text: str) -> str:
    """Hash a text as it is: for what has no canonical form, so that its second delivery is still known as the same."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
