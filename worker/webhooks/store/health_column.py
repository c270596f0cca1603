"""Reads and writes the JSON column `health` of a receiver."""

import json
from dataclasses import asdict, fields

from worker.webhooks.core.outcome import DisableReason
from worker.webhooks.core.receiver_health import Bucket, ReceiverHealth

_KNOWN = frozenset(field.name for field in fields(ReceiverHealth))


def health_of(text: str | None) -> ReceiverHealth:
    """Read a column `health`; NULL is the health of a new receiver.

    Fields that another release has written and this release does not know are ignored.
    """
    if text is None:
        return ReceiverHealth()
    known = {name: value for name, value in json.loads(text).items() if name in _KNOWN}
    reason = known.get("disabled")
    window = tuple(Bucket(*bucket) for bucket in known.get("window", ()))
    return ReceiverHealth(**{**known, "window": window, "disabled": None if reason is None else DisableReason(reason)})


def text_of(health: ReceiverHealth) -> str:
    """Return the text of the column `health`."""
    return json.dumps(asdict(health))
