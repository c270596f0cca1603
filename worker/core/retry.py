"""Decides what follows a failed attempt: another one, a pause of the endpoint, or the end. Pure; called by `run`."""

from dataclasses import dataclass
from typing import Final, Literal

from worker.core.failure import Code, Failure
from worker.core.health import HOLD_S, Blame

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the job again, to start after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Queue the job again without spending its budget, to start after `delay_s` at the earliest.

    `alone`: others are served meanwhile, so that it is not the endpoint that it waits for.
    """

    delay_s: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Give_up:
    """Fail the job: the failure is permanent, the attempts are used, or the next start would miss the deadline."""

    reason: Literal["permanent", "attempts", "deadline"]


def decide(
    failure: Failure, *, blame: Blame, sent: bool, held: int, used: int, max_attempts: int, left_s: float, jitter: float
) -> Retry | Hold | Give_up:
    """Say what to do after `failure`.

    `blame`: whose it is, by `core.health`. `sent`: the endpoint may have seen the request. `held`: attempts so far that
    spent nothing. `used`: requests spent so far, this one included. `left_s`: seconds to the job's deadline. `jitter`:
    chance in [0, 1). What is the endpoint's holds the job, whatever is used; so does trouble of one job alone that
    nobody can have billed, ever longer. Trouble of one job alone that was sent is tried again within its budget.
    """
    if blame is Blame.endpoint:
        # Up to a quarter more, so that they do not all come back in the same moment.
        return Hold(HOLD_S * (1 + jitter / 4))
    troubled = failure.trouble == "endpoint"
    if not sent and (troubled or failure.code is Code.out_of_resources):
        return Hold((0.5 + jitter / 2) * backoff_s(held), alone=True)
    if not (failure.retryable or troubled):
        return Give_up("permanent")
    if used >= min(max_attempts, failure.tries or max_attempts):
        return Give_up("attempts")
    delay_s = (failure.retry_after_s or 0.0) + jitter * backoff_s(used)
    return Retry(delay_s) if delay_s < left_s else Give_up("deadline")


def backoff_s(used: int) -> float:
    """Return the longest wait after `used` requests: 0.5 s doubling up to 60 s. Full jitter draws below it."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(used - 1, 0), 32))
