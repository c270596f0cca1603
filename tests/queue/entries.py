"""Queue entries as clients, partial clients and accidents write them."""

import base64
import json
import uuid
from typing import Any

ROW = "0191d3c4-7f00-7000-8000-000000000001"


def envelope(
    row: Any = ROW, *, task: Any = "chat.run", body: Any = None, queue: str = "chat.run", **headers: Any
) -> Any:
    """Return a Celery message, protocol 2, as the Python client writes it; tests then damage it."""
    task_id = str(uuid.uuid4())
    options = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    text = json.dumps([[row], {}, options] if body is None else body)
    return {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None, "retries": 0,
            "eta": None, "expires": None, "timelimit": [None, None], "argsrepr": "", "kwargsrepr": "{}", **headers,
        },
        "properties": {
            "correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()), "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }  # fmt: skip


def without(message: Any, *path: str) -> Any:
    """Return the message without the member at `path`."""
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return message


def encoded(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


# Entries that kill, restart or stall a stock worker, and similar entries: name, entry, reason of the rejection.
BAD: list[tuple[str, bytes, str]] = [
    (name, encoded(entry), reason)
    for name, entry, reason in [
        ("empty", b"", "not_json"),
        ("binary", b"\x80\x04\x95\xff\xfe", "not_json"),
        ("text", b"hello", "not_json"),
        ("nearly a nudge", ROW.encode(), "not_json"),
        ("a nudge in capitals", f"{ROW.upper()}.x".encode(), "not_json"),
        ("list", [1, 2], "not_an_object"),
        ("null", b"null", "not_an_object"),
        ("number", b"1e999", "not_an_object"),
        ("deep", b"[" * 30_000 + b"]" * 30_000, "too_deep"),
        ("huge", b'{"body": "' + b"x" * 3_000_000 + b'"}', "too_large"),
        ("body is not base64", {**envelope(), "body": "%%%"}, "not_json"),
        ("body is not a list of three", envelope(body={"a": 1}), "not_an_array"),
        ("body is null", {**envelope(), "body": None}, "no_body"),
        ("no body", without(envelope(), "body"), "no_body"),
        ("no headers", without(envelope(), "headers"), "not_an_object"),
        ("headers a list", {**envelope(), "headers": [1]}, "not_an_object"),
        ("no id", without(envelope(), "headers", "id"), "no_id"),
        ("id an object", envelope(id={"a": 1}), "no_id"),
        ("id endless", envelope(id="x" * 300), "no_id"),
        ("task a list", envelope(task=["chat.run"]), "no_task"),
        ("task missing", without(envelope(), "headers", "task"), "not_an_object"),
        ("task unknown", envelope(task="celery.map"), "unknown_task"),
        ("task of the other queue", envelope(task="webhook.deliver"), "unknown_task"),
        ("no arguments", envelope(body=[[], {}, {}]), "bad_arguments"),
        ("two arguments", envelope(body=[[ROW, ROW], {}, {}]), "bad_arguments"),
        ("argument no UUID", envelope("seven"), "bad_arguments"),
        ("argument an object", envelope({"id": ROW}), "bad_arguments"),
        ("pickle", {**envelope(), "content-type": "application/x-python-serialize", "body": "gASVBQ=="}, "not_json"),
    ]
]

# Odd but valid: the fault is in a part that we do not read.
ODD: list[tuple[str, Any]] = [
    ("no delivery tag", without(envelope(), "properties", "delivery_tag")),
    ("delivery tag an object", {**envelope(), "properties": {"delivery_tag": {}, "body_encoding": "base64"}}),
    ("no delivery info", without(envelope(), "properties", "delivery_info")),
    ("no properties", without(envelope(), "properties")),
    ("timelimit a number", envelope(timelimit=5)),
    ("stamped headers a number", envelope(stamped_headers=5)),
    ("bad eta", envelope(eta="yesterday")),
    ("far eta", envelope(eta="2099-01-01T00:00:00+00:00")),
    ("expired", envelope(expires="2001-01-01T00:00:00+00:00")),
    ("a link", envelope(body=[[ROW], {}, {"callbacks": [{"task": "evil", "args": []}]}])),
    ("short limit", envelope(timelimit=[0.001, 0.001])),
]
