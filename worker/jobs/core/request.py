"""Reads the `request` of a job message: its exact text, its fingerprint, and whether the endpoint may have it."""

import hashlib
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from worker.chat.request import validate
from worker.core.endpoint import Validation
from worker.core.exact_json import Member, deeper_than
from worker.core.faults import FAULT_LIMIT, Fault, unsendable
from worker.core.lenient_json import MAX_DEPTH
from worker.core.storable_text import clean_text

# What the row shows of a model's name, beside the request that has all of it.
_LONGEST_MODEL = 255


# A tuple for the reason `jsontext.Member` is one.
class Request(NamedTuple):
    """A request as it came, `null` where it is missing or not kept, and what its row shows of it."""

    text: str
    fingerprint: str
    model: str | None = None
    streamed: bool = False
    n: int | None = None
    token_limit: int | None = None


def read_request(
    text: str, member: Member | None, validation: Validation, *, max_bytes: int
) -> tuple[Request, list[Fault]]:
    """Read the request that stands at `member` in a job's text; one above `max_bytes` (UTF-8) is not kept."""
    if member is None or member.value is None:
        return _not_kept("null"), [Fault("request", "is missing; put the chat-completion body there")]
    written = text[member.start : member.end]
    size = len(written) if written.isascii() else len(written.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        remedy = "send large content by URL, or raise AFTERWORD_MAX_REQUEST_BYTES"
        return _not_kept(written), [Fault("request", f"has {size} bytes; allowed are {max_bytes}; {remedy}")]
    if type(member.value) is not dict:
        # What it should have been, the rule of the field has said.
        return Request(written, text_fingerprint(written)), []
    if written.count("{") + written.count("[") > MAX_DEPTH and deeper_than(member.value, MAX_DEPTH):
        return _not_kept(written), [Fault("request", f"nests more than {MAX_DEPTH} levels deep; send flatter JSON")]
    return _checked(written, member.value, validation)


def _checked(written: str, value: Mapping[str, Any], validation: Validation) -> tuple[Request, list[Fault]]:
    faults = validate(value, validation)
    try:
        digest = fingerprint(value)
    except ValueError:
        # A number or a character that JSON cannot carry, somewhere.
        faults += islice(unsendable("request", value), FAULT_LIMIT)
        digest = text_fingerprint(written)
    model, n = value.get("model"), value.get("n")
    # A column of 32 bits holds it; no endpoint makes as many choices.
    n = n if type(n) is int and 0 < n < 2**31 else None
    request = Request(
        text=written,
        fingerprint=digest,
        model=clean_text(model[:_LONGEST_MODEL]) if type(model) is str else None,
        streamed=value.get("stream") is True,
        n=n,
        token_limit=_token_limit(value, n or 1),
    )
    return request, faults


def _not_kept(written: str) -> Request:
    return Request("null", text_fingerprint(written))


def _token_limit(value: Mapping[str, Any], n: int) -> int | None:
    """Return the most tokens the answer may have: the larger of the two limits, for each choice."""
    limits = [value.get("max_completion_tokens"), value.get("max_tokens")]
    known = [limit for limit in limits if type(limit) is int and limit > 0]
    return n * max(known) if known and n * max(known) < 2**63 else None


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
