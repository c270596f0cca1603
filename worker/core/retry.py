"""Decides what follows a failed attempt: another one, a pause of the endpoint, or the end. Pure; called by `run`."""

from dataclasses import dataclass
from typing import Final, Literal

from worker.core.failure import Code, Failure

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 60.0
# A key or a quota is renewed by people; an endpoint that is down comes back by itself.
PAUSE_S: Final = {Code.unauthorized: 30.0, Code.quota_exhausted: 30.0, Code.misconfigured: 30.0}
SHORTEST_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the job again, to start after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Queue the job again without spending its budget, and rest the endpoint for `pause_s`."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Give_up:
    """Fail the job: the failure is permanent, the attempts are used, or the next start would miss the deadline."""

    reason: Literal["permanent", "attempts", "deadline"]


def decide(failure: Failure, *, used: int, max_attempts: int, left_s: float, jitter: float) -> Retry | Hold | Give_up:
    """Say what to do after `failure`.

    `used`: requests spent so far, this one included. `left_s`: seconds to the job's deadline. `jitter`: chance in
    [0, 1). The endpoint's trouble is never the job's: it holds, whatever is used.
    """
    if failure.trouble == "endpoint":
        return Hold(_pause_s(failure, jitter))
    if not failure.retryable:
        return Give_up("permanent")
    if used >= min(max_attempts, failure.tries or max_attempts):
        return Give_up("attempts")
    delay_s = (failure.retry_after_s or 0.0) + jitter * backoff_s(used)
    return Retry(delay_s) if delay_s < left_s else Give_up("deadline")


def backoff_s(used: int) -> float:
    """Return the longest wait after `used` requests: 0.5 s doubling up to 60 s. Full jitter draws below it."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(used - 1, 0), 32))


def _pause_s(failure: Failure, jitter: float) -> float:
    asked = failure.retry_after_s
    pause_s = PAUSE_S.get(failure.code, SHORTEST_PAUSE_S) if asked is None else asked
    # Up to a quarter more, so that many workers do not all come back in the same moment.
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, pause_s) * (1 + jitter / 4))
