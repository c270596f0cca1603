"""A receiver's health as its row keeps it: one JSON column."""

import json
from dataclasses import asdict

from worker.core.delivery import Disable_reason
from worker.core.receiver_health import Health


def health_of(text: str | None) -> Health:
    """Read a column `health`; None is that of a receiver nobody has sent anything."""
    if text is None:
        return Health()
    known = json.loads(text)
    reason = known.get("disabled")
    return Health(**{**known, "disabled": None if reason is None else Disable_reason(reason)})


def text_of(health: Health) -> str:
    """Return what the column `health` holds of it."""
    return json.dumps(asdict(health))
