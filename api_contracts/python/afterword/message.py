"""A request and its options become a job message, version 1: the text that the queue and the inbox both carry.

What the worker checks (ranges, the request itself) is left to the worker, which reports every fault at once in a
visible job. Here only that is refused which could not be sent, or would say something else than the caller meant.
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

# What submit_v1 takes beside the text, so that the job has its names in the views before a worker has read it.
HINTS = ("tenant", "batch", "custom_id", "idempotency_key")
_DEFAULT_TENANT = "default"
# SQL cannot hold these; a worker refuses them.
_unstorable = re.compile("[\0\ud800-\udfff]")

# ASCII alone: it passes every database encoding, and half a surrogate pair arrives at the worker, which names it.
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Options(TypedDict, total=False):
    """The fields of a job message beside the request. None means not given, but for `webhook`, where it means nobody.

    `not_before` and `deadline` are aware datetimes, or RFC 3339 texts with an offset. `priority` 0 runs first.
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
    """Return the job's id, a new one if none is given, and the text of its message.

    Raises TypeError for an option that does not exist and ValueError for what JSON cannot hold.
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
    """Return the HINTS that a job has; what is no storable text is left out, and named by the worker."""
    given = {"tenant": _DEFAULT_TENANT, **{name: options[name] for name in HINTS if options.get(name) is not None}}
    return {name: value for name, value in given.items() if isinstance(value, str) and not _unstorable.search(value)}


def job_id(given: str | uuid.UUID) -> str:
    """Return an id as lower-case text; ValueError if it is none."""
    try:
        return str(given if isinstance(given, uuid.UUID) else uuid.UUID(given))
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"id is {given!r}; give a UUID, such as {uuid.uuid4()}") from error


def encode(fields: Mapping[str, Any]) -> str:
    """Write a message as JSON in ASCII; ValueError names the place that JSON cannot hold."""
    try:
        return _encoder.encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(_reason(fields) or f"the job is not JSON: {error}") from error


def _unknown(name: str) -> str:
    near = get_close_matches(name, NAMES, n=1)
    if near:
        return f"{name!r} is no option of a job; did you mean {near[0]!r}?"
    return f"{name!r} is no option of a job; what belongs to the chat completion goes into request, options are {NAMES}"


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
        raise ValueError(f"{name} is {value}, which has no time zone; give an aware datetime, such as {example}")
    return value.astimezone(timezone.utc).isoformat()


def _reason(fields: Mapping[str, Any]) -> str | None:
    try:
        return _fault(fields)
    except RecursionError:
        return "request contains itself or nests too deeply for JSON; send plain values"


def _fault(value: object, path: str = "") -> str | None:
    """Find the first value that JSON cannot hold; return a sentence about it."""
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
