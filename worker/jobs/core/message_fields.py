"""The rule of each field of a job message. Contract: `api_contracts/job_message.schema.json`."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from worker.chat.request_fields import RULES
from worker.chat.schema_rules import Rule, integer, json_object, text
from worker.core.faults import Fault, describe_value, member_path
from worker.webhooks.core.registration import name_fault

# Our own bounds: an SQL index key must hold any of these texts, and no job may run without end.
_LONGEST_TEXT = 255
_LONGEST_URL = 2048
_LONGEST_TIMEOUT_S = 86_400
_MOST_ATTEMPTS = 100

# OpenAI's bounds for metadata.
_METADATA_PAIRS = 16
_METADATA_NAME = 64
_METADATA_TEXT = 512

# The range that every database, view and client can show. It ends a day before the year 10000, because a session east
# of Greenwich would show the last second of 9999 in that year. Times before 1970 act like 1970: both are past.
FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
LAST_INSTANT = datetime(9999, 12, 31, tzinfo=UTC)

_rfc3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII).fullmatch
_traceparent = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
# PostgreSQL's text holds no U+0000, UTF-8 no lone surrogate.
_unstorable = re.compile("[\0\ud800-\udfff]").search
_NOT_STORABLE = "holds U+0000 or half of a surrogate pair, which SQL cannot store; leave it out"

_label_text = text(longest=_LONGEST_TEXT)
_metadata_text = text(longest=_METADATA_TEXT, empty=True)


def read_time(value: str) -> datetime:
    """Read an RFC 3339 time with offset as an aware UTC datetime. Raises ValueError, also outside years 1 to 9999."""
    if not _rfc3339(value):
        raise ValueError(f"{value!r} is not an RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is outside the years 1 to 9999") from error


def within_reach(given: datetime) -> datetime:
    """Return the instant, or the nearest between FIRST_INSTANT and LAST_INSTANT."""
    return min(max(given, FIRST_INSTANT), LAST_INSTANT)


def is_traceparent(value: str) -> bool:
    """Return whether the text is a valid W3C `traceparent`; the standard says to ignore an invalid value."""
    return _traceparent(value) is not None


def unknown_field(name: str) -> Fault:
    """Return the fault of an unknown field; it names the closest known field."""
    if name in RULES["document"]:
        return Fault(_path(name), 'is a field of the chat request, not of the job; put it inside "request"')
    near = get_close_matches(name[:64], FIELDS, n=1)
    remedy = f'did you mean "{near[0]}"?' if near else f"the fields are {', '.join(FIELDS)}"
    return Fault(_path(name), f"is not a field of a job; {remedy}")


def _path(name: str) -> str:
    return member_path("", name).removeprefix(".")


def _label(path: str, value: Any) -> Iterator[Fault]:
    """Check a text that has its own column."""
    yield from _label_text(path, value)
    if type(value) is str and _unstorable(value):
        yield Fault(path, _NOT_STORABLE)


def _version(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is not int or value != 1:
        yield Fault(path, f"is {describe_value(value)}; this worker reads version 1")


def _time(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is not str or not _is_instant(value):
        yield Fault(
            path, f'is {describe_value(value)}; send an RFC 3339 time with an offset, such as "2026-11-23T03:14:15Z"'
        )


def _is_instant(value: str) -> bool:
    try:
        read_time(value)
    except ValueError:
        return False
    return True


def _timeout(path: str, value: Any) -> Iterator[Fault]:
    if type(value) not in (int, float) or not 0 < value <= _LONGEST_TIMEOUT_S:
        yield Fault(
            path, f"is {describe_value(value)}; send a number of seconds above 0 and at most {_LONGEST_TIMEOUT_S}"
        )


def _endpoint(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is not list:
        yield from _label(path, value)
    elif len(value) != 1:
        yield Fault(path, f"is {describe_value(value)}; fallback endpoints do not exist yet; name one endpoint")
    else:
        yield from _label(f"{path}[0]", value[0])


def _webhook(path: str, value: Any) -> Iterator[Fault]:
    match value:
        case {"to": name} if len(value) == 1:
            yield from _receiver(f"{path}.to", name)
        case {"url": url} if len(value) == 1:
            yield from _url(f"{path}.url", url)
        case None:
            return
        case _:
            # Faults are stored, shown and sent, so a text is never quoted: it may be a URL that holds a token.
            kind = "a text" if type(value) is str else describe_value(value)
            yield Fault(path, f'is {kind}; send {{"to": a receiver\'s name}}, {{"url": "https://…"}} or null')


def _receiver(path: str, name: Any) -> Iterator[Fault]:
    """Check that a receiver can be registered under this name; otherwise its deliveries would be on hold for ever."""
    if type(name) is str and "://" in name:
        yield Fault(path, 'is a URL, not a receiver\'s name; send it as {"url": "https://…"}')
    elif fault := name_fault(name):
        yield Fault(path, fault)


def _url(path: str, value: Any) -> Iterator[Fault]:
    # A setting of the operator allows plain http or not; it is checked where deliveries are sent.
    if type(value) is str and len(value) > _LONGEST_URL:
        # Not quoted: its query may hold a token.
        yield Fault(path, f"has {len(value)} characters; send at most {_LONGEST_URL}")
    elif type(value) is not str or not value:
        yield Fault(path, f"is {describe_value(value)}; send a URL that begins with https://")
    elif not value.startswith(("https://", "http://")) or _unstorable(value):
        yield Fault(path, "is not a usable webhook URL; send a URL that begins with https://")


def _metadata(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is not dict:
        return
    if len(value) > _METADATA_PAIRS:
        yield Fault(path, f"has {len(value)} pairs; send at most {_METADATA_PAIRS}")
        return
    for name, member in value.items():
        member_at = member_path(path, name)
        if len(name) > _METADATA_NAME:
            yield Fault(member_at, f"has a name of {len(name)} characters; send at most {_METADATA_NAME}")
        yield from _metadata_text(member_at, member)
        if _unstorable(name) or (type(member) is str and _unstorable(member)):
            yield Fault(member_at, _NOT_STORABLE)


FIELDS: Mapping[str, Rule] = {
    "request": json_object,
    "id": _label,
    "version": _version,
    "tenant": _label,
    "idempotency_key": _label,
    "endpoint": _endpoint,
    "priority": integer(0, 9),
    "not_before": _time,
    "deadline": _time,
    "timeout_s": _timeout,
    "max_attempts": integer(1, _MOST_ATTEMPTS),
    "webhook": _webhook,
    "ordering_key": _label,
    "batch": _label,
    "custom_id": _label,
    "metadata": _metadata,
    "traceparent": _label,
}
