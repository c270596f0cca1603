"""A receiver's health as its row keeps it: one JSON column."""

import json
from dataclasses import asdict, fields

from worker.webhooks.core.outcome import DisableReason
from worker.webhooks.core.receiver_health import Bucket, ReceiverHealth

_KNOWN = frozenset(one.name for one in fields(ReceiverHealth))


def health_of(text: str | None) -> ReceiverHealth:
    """Read a column `health`; None is that of a receiver nobody has sent anything.

    What another release has written of it and this one does not know is left out.
    """
    if text is None:
        return ReceiverHealth()
    known = {name: value for name, value in json.loads(text).items() if name in _KNOWN}
    reason = known.get("disabled")
    window = tuple(Bucket(*bucket) for bucket in known.get("window", ()))
    return ReceiverHealth(**{**known, "window": window, "disabled": None if reason is None else DisableReason(reason)})


def text_of(health: ReceiverHealth) -> str:
    """Return what the column `health` holds of it."""
    return json.dumps(asdict(health))
