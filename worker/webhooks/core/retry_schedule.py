"""The wait before the next attempt at a delivery: by schedule, by Retry-After, or after a fault of ours. Pure."""

from typing import Any, Final

HOUR_S: Final = 3600.0
SCHEDULE_S: Final = (5.0, 30.0, 300.0, 1800.0, *(hours * HOUR_S for hours in (2.0, 5.0, 10.0, 14.0, 20.0, 24.0)))
MAX_STEPS: Final = 20
MAX_STEP_S: Final = 24 * HOUR_S
MAX_SUM_S: Final = 7 * 24 * HOUR_S
LONGEST_RETRY_AFTER_S: Final = 24 * HOUR_S
_SPREAD: Final = 0.2
_LEAST_SPREAD_S: Final = 1.0
_MOST_SPREAD_S: Final = 1800.0


def wait_s(step_s: float, *, retry_after_s: float | None, jitter: float) -> float:
    """Return the wait: the later of schedule and Retry-After, and up to 20 % of it (1 s to 30 min) on top.

    Jitter is only added: an attempt before the Retry-After is refused for sure.
    """
    wait = max(step_s, min(LONGEST_RETRY_AFTER_S, retry_after_s or 0.0))
    return wait + jitter * min(_MOST_SPREAD_S, max(_LEAST_SPREAD_S, wait * _SPREAD))


def postponed_s(first_s: float, longest_s: float, *, postponed: int, jitter: float) -> float:
    """Return the wait after a fault of ours: doubled by each of the `postponed` earlier ones, plus up to a fifth.

    Without the doubling, a fault that lasts for days would write one attempt row per minute and delivery.
    """
    return min(longest_s, first_s * 2.0 ** min(postponed, 30)) * (1.0 + jitter * _SPREAD)


def schedule_fault(steps: Any) -> str | None:
    """Return a sentence about the fault of a schedule, or None. Valid: a list of 1 to 20 waits in seconds."""
    if not isinstance(steps, list | tuple) or not 1 <= len(steps) <= MAX_STEPS:
        return f"The schedule is no list of 1 to {MAX_STEPS} waits in seconds"
    for number, step in enumerate(steps, 1):
        if type(step) not in (int, float) or not 1 <= step <= MAX_STEP_S:
            return (
                f"Step {number} of the schedule is {step!r:.40}; a wait is 1 to {MAX_STEP_S:.0f} seconds, as a number"
            )
    if sum(steps) > MAX_SUM_S:
        return f"The schedule's waits add up to {sum(steps):.0f} s; {MAX_SUM_S:.0f} s (7 days) are allowed"
    return None
