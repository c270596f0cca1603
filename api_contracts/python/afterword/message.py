"""Builds a job message, version 1: the JSON text that the queue and the inbox both carry.

The worker checks ranges and the request itself, and reports all faults at once in a visible job. This module refuses
only values that cannot be sent or whose meaning is unclear.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from difflib import get_close_matches
from typing import Any, TypedDict

VERSION = 1
_INSTANTS = ("not_before", "deadline")

# Columns of submit_v1 beside the text. jobs_v1 shows them until a worker has read the job.
HINTS = ("tenant", "batch", "custom_id", "idempotency_key")
_DEFAULT_TENANT = "default"
# Characters that SQL cannot store. The worker refuses them.
_unstorable = re.compile("[\0\ud800-\udfff]")

# ASCII only: it passes every database encoding. A lone surrogate arrives as an escape, and the worker reports it.
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Options(TypedDict, total=False):
    """The fields of a job message except `request`. None means not given, except `webhook=None`: send no webhook.

    `not_before`, `deadline`: aware datetimes, or RFC 3339 texts with an offset. `timeout_s`: seconds for one call.
    `priority`: 0 (runs first) to 9. `webhook`: `{"to": "billing"}` or `{"url": "https://…"}`. The worker enforces the
    bounds of api_contracts/job_message.schema.json.
    """

    id: str | uuid.UUID | None
    tenant: str | None
    idempotency_key: str | None
    endpoint: str | None
    priority: int | None
    not_before: datetime | str | None
    deadline: datetime | str | None
    timeout_s: float | None
    max_attempts: int | None
    webhook: Mapping[str, str] | None
    ordering_key: str | None
    batch: str | None
    custom_id: str | None
    metadata: Mapping[str, str] | None
    traceparent: str | None


NAMES = tuple(Options.__annotations__)


def compose(request: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the job's id and the text of its message. The id is a new UUID if the options give none.

    Raises TypeError for an unknown option or a value of the wrong type. Raises ValueError for an id that is no UUID, a
    datetime without time zone and a value that JSON cannot hold.
    """
    if not isinstance(request, Mapping):
        raise TypeError(f"request is {_kind(request)}; give the body of the chat completion as a dict")
    fields = {"version": VERSION, "request": dict(request)}
    for name, value in options.items():
        if name not in NAMES:
            raise TypeError(_unknown(name))
        if name != "id" and (value is not None or name == "webhook"):
            fields[name] = _plain(name, value)
    given = options.get("id")
    return str(uuid.uuid4()) if given is None else job_id(given), encode(fields)


def hints(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the HINTS of a job. A value that is no storable text is left out; the worker reports it."""
    given = {"tenant": _DEFAULT_TENANT, **{name: options[name] for name in HINTS if options.get(name) is not None}}
    return {name: value for name, value in given.items() if isinstance(value, str) and not _unstorable.search(value)}


def job_id(given: str | uuid.UUID) -> str:
    """Return a UUID as lower-case text with hyphens. Raises ValueError if `given` is no UUID."""
    try:
        return str(given if isinstance(given, uuid.UUID) else uuid.UUID(given))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"id is {given!r}; give a UUID, such as {uuid.uuid4()}") from error


def encode(fields: Mapping[str, Any]) -> str:
    """Return a message as ASCII JSON. Raises ValueError with the path of the value that JSON cannot hold."""
    try:
        return _encoder.encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            _reason(fields) or f"the job cannot be written as JSON ({error}); give plain JSON values"
        ) from error


def _unknown(name: str) -> str:
    near = get_close_matches(name, NAMES, n=1)
    if near:
        return f"{name!r} is not an option of a job; did you mean {near[0]!r}?"
    return f"{name!r} is not an option of a job; put fields of the chat completion into request; options are {NAMES}"


def _plain(name: str, value: object) -> object:
    if name in _INSTANTS:
        return _instant(name, value)
    return dict(value) if isinstance(value, Mapping) else value


def _instant(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    example = "datetime.now(timezone.utc) + timedelta(hours=1)"
    if not isinstance(value, datetime):
        raise TypeError(f"{name} is {_kind(value)}; give an aware datetime, such as {example}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} is {value}, without a time zone; give an aware datetime, such as {example}")
    return value.astimezone(timezone.utc).isoformat()


def _reason(fields: Mapping[str, Any]) -> str | None:
    try:
        return _fault(fields)
    except RecursionError:
        return "request contains itself or nests too deeply for JSON; send plain values"


def _fault(value: object, path: str = "") -> str | None:
    """Return a sentence about the first value that JSON cannot hold, or None. `path`: where `value` is in the job."""
    if isinstance(value, float):
        # NaN is the only number that differs from itself.
        wrong = value != value or value in (float("inf"), float("-inf"))
        return f"{path} is {value}, which JSON cannot hold; leave it out or send a number" if wrong else None
    if isinstance(value, dict):
        return _first_fault((f"{path}.{key}" if path else str(key), inner) for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return _first_fault((f"{path}[{place}]", inner) for place, inner in enumerate(value))
    if value is None or isinstance(value, (str, int)):
        return None
    remedy = "give its model_dump(exclude_none=True)" if hasattr(value, "model_dump") else "give plain JSON values"
    return f"{path} is {_kind(value)}, which JSON cannot hold; {remedy}"


def _first_fault(places: Any) -> str | None:
    return next((fault for path, inner in places if (fault := _fault(inner, path))), None)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
