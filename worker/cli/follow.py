"""`afterword dev`: a line for each change of a job, as long as the worker lives."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worker.cli import hold_words, output

if TYPE_CHECKING:
    from worker.jobs.store.listing import Listing

LOOK_S = 0.2
NEWEST = 200


def follow(jobs: "Listing", *, while_: Callable[[], bool]) -> None:
    """Print jobs as they change. Of a burst larger than the newest 200 only those are shown."""
    known: dict[str, tuple[Any, ...]] = {}
    while while_():
        found = jobs.newest(limit=NEWEST)
        for job in reversed(found):
            state = (job["status"], job["attempts"], job["waiting_for"])
            if known.get(job["id"]) != state:
                output.echo(_line(job))
        known = {job["id"]: (job["status"], job["attempts"], job["waiting_for"]) for job in found}
        time.sleep(LOOK_S)


def _line(job: dict[str, Any]) -> str:
    tokens = f"{job['prompt_tokens']}+{job['completion_tokens']} tokens" if job["prompt_tokens"] is not None else ""
    notes = [job["waiting_for"] and f"waits for {job['waiting_for']}", job["finish_reason"], tokens, job["error_code"]]
    shown = "  ".join(str(note) for note in notes if note)
    attempts = hold_words.attempts(job)
    return f"{job['id']}  {job['status']:11}  attempt {attempts}  {job['model'] or '':16}  {shown}".rstrip()
