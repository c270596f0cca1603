"""Decode the message of a Celery client: any bytes become an Envelope or a dead letter.

The message never reaches Celery, because malformed messages end Celery's consumer. This module takes the task, the id
and the argument, and lists the producer's other options, because they have no effect here.
"""

import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.core.dead_letter import LONGEST_ID, DeadLetter
from worker.core.exact_json import JsonError, Member, elements, load, members
from worker.core.faults import describe_value

# Start and end of the body that Python's Celery writes for a task with one argument and no callbacks.
_PLAIN_START = "[["
_PLAIN_END = '], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

_IGNORED_HEADERS = ("eta", "expires", "timelimit")
# Names in Celery's messages, and the producer's names for the same options.
_IGNORED_EMBEDS = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}
_NOTHING: tuple[Any, ...] = (None, [], [None, None])

# kombu's names for zlib and gzip: the short names and the names in messages.
_COMPRESSIONS = frozenset({"zlib", "gzip", "application/x-gzip"})
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


@dataclass(frozen=True, slots=True)
class Envelope:
    """A task message. `arguments_text` is its only argument, as the original JSON text; the reader must check it.

    `id` is the Celery task id, or None if it is no text; `ignored` names the options without effect here.
    """

    task: str
    id: str | None
    arguments_text: str
    ignored: tuple[str, ...]


def decode(entry: bytes, *, max_bytes: int = 64 * 1024 * 1024) -> Envelope | DeadLetter:
    """Decode a queue entry of Celery's message protocol 2 or 1; the body may be base64 or plain, and compressed.

    `max_bytes` limits the entry and its unpacked body. Never raises an error. Reasons of dead letters: `too_large,
    not_json, too_deep, not_an_object, not_an_array, no_task, no_body, bad_arguments`.
    """
    if len(entry) > max_bytes:
        return DeadLetter("too_large", f"The entry has {len(entry)} bytes; allowed are {max_bytes}.", None)
    task_id = None
    try:
        outer = _object(load(_utf8(entry, "entry")), "entry")
        headers = outer.get("headers")
        headers = headers if isinstance(headers, dict) else {}
        task_id = _text_or_none(headers.get("id"))
        body = _body(outer, headers, max_bytes)
        if "task" in headers:
            return _read_protocol_2(headers, task_id, body)
        found = members(body)
        task_id = _text_or_none(found["id"].value) if "id" in found else None
        return _read_protocol_1(found, task_id, body)
    except JsonError as error:
        return DeadLetter(error.reason, str(error), task_id)


def _read_protocol_2(headers: Mapping[str, Any], task_id: str | None, body: str) -> Envelope:
    """Read protocol 2: the body is `[args, kwargs, embed]`, everything else is a header."""
    ignored = [name for name in _IGNORED_HEADERS if headers.get(name) not in _NOTHING]
    if body.startswith(_PLAIN_START) and body.endswith(_PLAIN_END):
        # Safe without parsing, because the reader of the argument checks that it is exactly one JSON value.
        argument = body[len(_PLAIN_START) : -len(_PLAIN_END)]
        return Envelope(_task(headers.get("task")), task_id, argument, tuple(ignored))
    parts = elements(body)
    if not 2 <= len(parts) <= 3:
        raise JsonError("bad_arguments", f"The body has {len(parts)} parts; Celery's have args, kwargs and options.")
    embed = parts[2].value if len(parts) == 3 and isinstance(parts[2].value, dict) else {}
    ignored += [word for name, word in _IGNORED_EMBEDS.items() if embed.get(name) not in _NOTHING]
    return Envelope(_task(headers.get("task")), task_id, _argument(body, parts[0], parts[1]), tuple(ignored))


def _read_protocol_1(found: Mapping[str, Member], task_id: str | None, body: str) -> Envelope:
    """Read protocol 1: the body is one object with all parts."""
    values = {name: member.value for name, member in found.items()}
    ignored = [name for name in _IGNORED_HEADERS if values.get(name) not in _NOTHING]
    ignored += [word for name, word in _IGNORED_EMBEDS.items() if values.get(name) not in _NOTHING]
    argument = _argument(body, found.get("args"), found.get("kwargs"))
    return Envelope(_task(values.get("task")), task_id, argument, tuple(ignored))


def _argument(body: str, args: Member | None, kwargs: Member | None) -> str:
    """Return the text of the only argument: `[job]` with `{}`, or `[]` with `{"job": job}`."""
    given = args.value if args and args.value is not None else []
    named = kwargs.value if kwargs and kwargs.value is not None else {}
    if args and isinstance(given, list) and len(given) == 1 and named == {}:
        inside = body[args.start : args.end]
        only = elements(inside)[0]
        return inside[only.start : only.end]
    if kwargs and given == [] and isinstance(named, dict) and list(named) == ["job"]:
        inside = body[kwargs.start : kwargs.end]
        only = members(inside)["job"]
        return inside[only.start : only.end]
    raise JsonError("bad_arguments", "The arguments are not one job; send args [job], or kwargs {'job': job}.")


def _body(outer: Mapping[str, Any], headers: Mapping[str, Any], max_bytes: int) -> str:
    body = outer.get("body")
    if not isinstance(body, str) or not body:
        raise JsonError("no_body", "The entry has no body; send the arguments as JSON text, plain or in base64.")
    # Base64 never starts with a bracket, so the first character shows the encoding; `body_encoding` may be missing.
    if body.lstrip().startswith(("[", "{")):
        return body
    content_type = outer.get("content-type")
    try:
        packed = binascii.a2b_base64(body)
    except ValueError as error:
        _refuse_serializer(content_type)
        raise JsonError("not_json", "The body is neither JSON nor base64; send JSON, plain or in base64.") from error
    unpacked = _unpacked(packed, headers.get("compression"), max_bytes)
    if not unpacked.lstrip().startswith((b"[", b"{")):
        _refuse_serializer(content_type)
    return _utf8(unpacked, "body")


def _refuse_serializer(content_type: Any) -> None:
    """Raise JsonError if the content type of this body names another serializer: pickle, YAML, msgpack."""
    if isinstance(content_type, str) and "json" not in content_type.lower():
        raise JsonError("not_json", f"The body is {describe_value(content_type)}; send JSON (task_serializer='json').")


def _unpacked(packed: bytes, compression: Any, max_bytes: int) -> bytes:
    if compression is None:
        return packed
    if not (isinstance(compression, str) and compression.lower() in _COMPRESSIONS):
        raise JsonError(
            "not_json",
            f"The body's compression is {describe_value(compression)}; send the body with gzip, or uncompressed.",
        )
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        body = stream.decompress(packed, max_bytes)
    except zlib.error as error:
        raise JsonError("not_json", "The body is marked as compressed but is no zlib or gzip stream.") from error
    if stream.unconsumed_tail:
        raise JsonError("too_large", f"The compressed body unpacks to more than the {max_bytes} bytes allowed.")
    return body


def _utf8(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise JsonError("not_json", f"The {what} is not UTF-8 at byte {error.start}; send JSON.") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise JsonError("not_an_object", f"The {what} is JSON but not an object.")
    return value


def _task(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise JsonError("no_task", "The message names no task.")
    return name


def _text_or_none(value: Any) -> str | None:
    # One character more than LONGEST_ID shows the reader that the text is too long for an id.
    return value[: LONGEST_ID + 1] if isinstance(value, str) else None
