"""A receiver's health as its row keeps it: one JSON column for `core`, two columns for SQL."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from worker.core.delivery import Disable_reason
from worker.core.receiver_health import Health, resting_until_s


def health_of(text: str | None) -> Health:
    """Read a column `health`; None is that of a receiver nobody has sent anything."""
    if text is None:
        return Health()
    known = json.loads(text)
    reason = known.get("disabled")
    return Health(**{**known, "disabled": None if reason is None else Disable_reason(reason)})


def columns_of(health: Health) -> dict[str, Any]:
    """Return the columns of a receiver that hold its health."""
    resting_s = resting_until_s(health)
    return {
        "health": json.dumps(asdict(health)),
        "blocked_until": datetime.fromtimestamp(resting_s, UTC) if resting_s else None,
        "allowed": health.ramp or None,
    }
