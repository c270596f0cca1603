"""Decide the next step of a job after an attempt: completed, another attempt, a wait, or the end. Pure."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from worker.core.failure import ErrorCode, Failure, under_policy
from worker.core.lifecycle import CANCEL, COMPLETE, EXPIRE, FAIL, HOLD, RELEASE, RETRY, Move, Outcome
from worker.jobs.core.endpoint_health import LONGEST_WAIT_S, FailureOwner, Verdict

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 60.0
# The first refusals in a row spend no attempt; each later one spends one.
FREE_REFUSALS: Final = 9
# A requested wait of up to a day is always believed: if the deadline is earlier, the job fails. A longer wait, up to a
# month, is believed only if the deadline is later. No rate limit has a longer period: "in 55 years" is an instant,
# written as a duration.
USUAL_HINT_S: Final = 24 * 3600.0
LONGEST_HINT_S: Final = 31 * USUAL_HINT_S
REFUSALS: Final = frozenset({ErrorCode.rate_limited, ErrorCode.overloaded})


@dataclass(frozen=True, slots=True)
class JobDecision:
    """The next step of a job.

    `move` None: the lease is lost, so the job's row stays as it is and only the attempt's row is closed.
    `counts`: the request spends one of `max_attempts`. `delay_s`: seconds until the job may start again.
    `waiting_for`: the value of `jobs_v1.waiting_for`. `refusals`: refusals in a row, this attempt included.
    """

    move: Move | None
    outcome: Outcome
    counts: bool = True
    delay_s: float = 0.0
    waiting_for: Literal["endpoint_paused", "limit", "retry"] | None = None
    refusals: int = 0


COMPLETED: Final = JobDecision(COMPLETE, Outcome.completed)
FAILED: Final = JobDecision(FAIL, Outcome.failed)
EXPIRED: Final = JobDecision(EXPIRE, Outcome.expired)
CANCELLED: Final = JobDecision(CANCEL, Outcome.cancelled)
# Another worker may hold the job by now.
LEASE_LOST: Final = JobDecision(None, Outcome.unknown)
# The request's row is deleted: nothing can be sent, now or later.
NOTHING_TO_SEND: Final = JobDecision(FAIL, Outcome.failed, counts=False)
# Another worker's configuration names the endpoint and ours does not: a deployment is under way.
UNKNOWN_ENDPOINT: Final = JobDecision(HOLD, Outcome.released, counts=False, delay_s=30.0, waiting_for="endpoint_paused")
# The endpoint refuses our own addition, the field `stream_options`: the job is not at fault.
WITHOUT_USAGE: Final = JobDecision(RETRY, Outcome.failed, counts=False, waiting_for="retry")


@dataclass(frozen=True, slots=True)
class AttemptBudget:
    """The requests and the time that a job may still spend.

    `used`: requests spent so far, this attempt included. `held`: attempts so far that spent nothing. `refusals`:
    refusals in a row before this attempt. `left_s`: seconds to the deadline. `retry_partial` and `retry_ambiguous`:
    the endpoint's settings about paying twice.
    """

    used: int
    max_attempts: int
    held: int
    refusals: int
    left_s: float
    retry_partial: bool = True
    retry_ambiguous: bool = True


def decide(
    failure: Failure | None, budget: AttemptBudget, *, verdict: Verdict, sent: bool, jitter: float
) -> JobDecision:
    """Decide the next step after an attempt that ended with `failure`, or with a complete answer (None).

    `verdict`: the owner of the failure, from `endpoint_health`. `sent`: the endpoint may have seen the request.
    `jitter`: a random number in [0, 1). The endpoint's failure holds the job, and spends an attempt only if the request
    may have been billed. A failure of this job alone holds it too if nothing was sent, with growing waits; a request
    that was sent is retried within the budget. The first refusals in a row spend nothing.
    """
    if failure is None:
        return COMPLETED
    if not _may_pay_again(failure, budget):
        # Also if the endpoint owns the failure: another request may be another bill.
        return _give_up(budget)
    if verdict.owner is FailureOwner.endpoint:
        return _hold_for_endpoint(failure, budget, hold_s=verdict.hold_s, jitter=jitter)
    troubled = failure.trouble == "endpoint"
    if not sent and (troubled or failure.code is ErrorCode.out_of_resources):
        return _hold("retry", (0.5 + jitter / 2) * backoff_s(budget.held))
    if not (failure.retryable or troubled):
        return _give_up(budget)
    if is_refusal(failure):
        return _hold_for_limit(failure, budget, jitter=jitter)
    delay_s = _asked_s(failure, budget) + jitter * backoff_s(budget.used)
    if _is_spent(failure, budget) or delay_s >= budget.left_s:
        return _give_up(budget)
    return JobDecision(RETRY, Outcome.failed, counts=sent, delay_s=delay_s, waiting_for="retry")


def release(failure: Failure, budget: AttemptBudget, *, sent: bool) -> JobDecision:
    """Decide the next step of a job that a stopping worker gives back; a request that was sent spends an attempt."""
    if not sent:
        return JobDecision(RELEASE, Outcome.released, counts=False)
    is_over = not failure.retryable or budget.used >= budget.max_attempts
    return JobDecision(FAIL if is_over else RELEASE, Outcome.unknown)


def is_refusal(failure: Failure) -> bool:
    """Say whether the endpoint had no room for the request at the moment and did nothing for it."""
    return failure.code in REFUSALS and failure.retryable and failure.billed == "no"


def backoff_s(used: int) -> float:
    """Return the longest wait after `used` requests: 0.5 s doubling up to 60 s. Full jitter draws below it."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(used - 1, 0), 32))


def _may_pay_again(failure: Failure, budget: AttemptBudget) -> bool:
    allowed = under_policy(
        replace(failure, retryable=True), retry_partial=budget.retry_partial, retry_ambiguous=budget.retry_ambiguous
    )
    return allowed.retryable


def _give_up(budget: AttemptBudget) -> JobDecision:
    return FAILED if budget.left_s > 0 else EXPIRED


def _hold(
    waiting_for: Literal["endpoint_paused", "limit", "retry"],
    delay_s: float,
    *,
    counts: bool = False,
    refusals: int = 0,
) -> JobDecision:
    return JobDecision(HOLD, Outcome.failed, counts, delay_s, waiting_for, refusals)


def _hold_for_endpoint(failure: Failure, budget: AttemptBudget, *, hold_s: float, jitter: float) -> JobDecision:
    counts = failure.billed != "no"
    if counts and _is_spent(failure, budget):
        return _give_up(budget)
    # Up to a quarter more: the held jobs do not all start in the same moment.
    return _hold("endpoint_paused", min(LONGEST_WAIT_S, hold_s * (1 + jitter / 4)), counts=counts)


def _hold_for_limit(failure: Failure, budget: AttemptBudget, *, jitter: float) -> JobDecision:
    refusals = budget.refusals + 1
    counts = refusals > FREE_REFUSALS
    delay_s = _asked_s(failure, budget) + jitter * backoff_s(refusals)
    if (counts and _is_spent(failure, budget)) or delay_s >= budget.left_s:
        return _give_up(budget)
    return _hold("limit", delay_s, counts=counts, refusals=refusals)


def _is_spent(failure: Failure, budget: AttemptBudget) -> bool:
    return budget.used >= min(budget.max_attempts, failure.tries or budget.max_attempts)


def _asked_s(failure: Failure, budget: AttemptBudget) -> float:
    """Return the wait that the endpoint asked for; 0 if it is too long to be meant as a duration."""
    asked_s = failure.retry_after_s or 0.0
    is_meant = asked_s <= USUAL_HINT_S or (asked_s <= LONGEST_HINT_S and asked_s < budget.left_s)
    return asked_s if is_meant else 0.0
