"""Reads and validates the `request` of a job message: its exact text, its fingerprint, its faults."""

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from worker.chat.request import validate
from worker.core.endpoint import Validation
from worker.core.exact_json import Member, deeper_than
from worker.core.faults import FAULT_LIMIT, Fault, unsendable_faults
from worker.core.lenient_json import MAX_DEPTH
from worker.core.storable_text import clean_text

# The longest model name in the column `model`; the stored request has the whole name.
_LONGEST_MODEL = 255
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode


# A tuple because a frozen dataclass costs three times as much to create, once for each message.
class Request(NamedTuple):
    """A request with the values of its columns. `text` is the exact text; `null` if the request is missing or dropped.

    `token_limit`: the most tokens the whole answer may have, all choices together.
    """

    text: str
    fingerprint: str
    model: str | None = None
    streamed: bool = False
    n: int | None = None
    token_limit: int | None = None


def read_request(
    text: str, member: Member | None, validation: Validation, *, max_bytes: int
) -> tuple[Request, list[Fault]]:
    """Read the request at `member` of a job's text; return it with its faults.

    A request above `max_bytes` (UTF-8), or nested too deep, is dropped. A request that is not an object has no fault
    here: the field's rule in `message_fields` reports it.
    """
    if member is None or member.value is None:
        return _dropped("null"), [Fault("request", "is missing; put the chat-completion body there")]
    exact = text[member.start : member.end]
    size = len(exact) if exact.isascii() else len(exact.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        remedy = "send large content by URL, or raise AFTERWORD_MAX_REQUEST_BYTES"
        return _dropped(exact), [Fault("request", f"has {size} bytes; the limit is {max_bytes}; {remedy}")]
    if type(member.value) is not dict:
        return Request(exact, text_fingerprint(exact)), []
    if exact.count("{") + exact.count("[") > MAX_DEPTH and deeper_than(member.value, MAX_DEPTH):
        return _dropped(exact), [Fault("request", f"nests more than {MAX_DEPTH} levels deep; send flatter JSON")]
    return _validated(exact, member.value, validation)


def fingerprint(value: Any) -> str:
    """Hash a parsed JSON value: SHA-256 of its canonical text, as 64 hexadecimal digits.

    Key order, whitespace and escapes do not matter. Integers count exactly, other numbers as doubles: `1e2` equals
    `100.0` but not `100`. Raises ValueError for NaN, an infinity or a lone surrogate (JSON cannot carry them), and
    RecursionError for very deep nesting.
    """
    return hashlib.sha256(_encode(value).encode()).hexdigest()


def text_fingerprint(text: str) -> str:
    """Hash the exact text of a request without a canonical form, so a repeated message is still a duplicate."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _validated(exact: str, value: Mapping[str, Any], validation: Validation) -> tuple[Request, list[Fault]]:
    faults = validate(value, validation)
    try:
        digest = fingerprint(value)
    except ValueError:
        # The request holds a number or a character that JSON cannot carry.
        faults += islice(unsendable_faults("request", value), FAULT_LIMIT)
        digest = text_fingerprint(exact)
    model, n = value.get("model"), value.get("n")
    # The column has 32 bits; no endpoint makes so many choices.
    n = n if type(n) is int and 0 < n < 2**31 else None
    request = Request(
        text=exact,
        fingerprint=digest,
        model=clean_text(model[:_LONGEST_MODEL]) if type(model) is str else None,
        streamed=value.get("stream") is True,
        n=n,
        token_limit=_token_limit(value, n or 1),
    )
    return request, faults


def _dropped(exact: str) -> Request:
    return Request("null", text_fingerprint(exact))


def _token_limit(value: Mapping[str, Any], n: int) -> int | None:
    """Return the larger of the two token limits, times the number of choices."""
    limits = [value.get("max_completion_tokens"), value.get("max_tokens")]
    known = [limit for limit in limits if type(limit) is int and limit > 0]
    return n * max(known) if known and n * max(known) < 2**63 else None
