"""Sentences about a job or an endpoint that waits, the same in every command."""

from collections.abc import Mapping
from typing import Any

from worker.core.failure import MEANINGS, ErrorCode


def attempts(row: Mapping[str, Any]) -> int | str:
    """Return a job's number of attempts, or `17, 0 of 5 spent` if some did not count against `max_attempts`.

    `row` has the columns `attempts`, `attempts_used` and `max_attempts` of jobs_v1.
    """
    made, used, most = row["attempts"], row["attempts_used"], row["max_attempts"]
    return made if made == used or most is None else f"{made}, {used} of {most} spent"


def job(row: Mapping[str, Any]) -> str | None:
    """Return the reason why a queued job waits after a failure; None for all other jobs."""
    if row["status"] != "queued" or row["error_code"] is None:
        return None
    until = f"; next try {row['waiting_until']}" if row["waiting_until"] is not None else ""
    return f"waits for {row['waiting_for']} after {row['error_code']}: {row['error_message']}{until}"


def endpoint(row: Mapping[str, Any]) -> str | None:
    """Return the reason why an endpoint is paused or its only job fails; None if neither is so.

    `row` is a row of `Listing.endpoints`.
    """
    cause = row.get("cause")
    if cause is None:
        return None
    if cause == "operator":
        return f"paused by an operator since {row['since']}; to end it: afterword endpoints resume {row['name']}"
    reason, tries = _reason(row["reason"], row.get("message")), f"next try {row['next_probe'] or 'is on its way'}"
    if row.get("suspect_job"):
        return (
            f"{row['state']}, but job {row['suspect_job']} meets trouble since {row['since']}, and no other job has "
            f"succeeded since: {reason} {tries}"
        )
    return f"paused by {cause} since {row['since']}: {reason} {tries}"


def _reason(code: str | None, message: str | None) -> str:
    if code is None:
        return "the reason is being written."
    if message is None and code in ErrorCode.__members__:
        message = MEANINGS[ErrorCode(code)].sentence
    return f"{code}: {message}" if message else f"{code}."
