"""Decides what follows a failed attempt: another one, a wait for the endpoint, or the end. Pure; called by `run`."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from worker.core.failure import ErrorCode, Failure, under_policy
from worker.jobs.core.endpoint_health import LONGEST_WAIT_S, FailureOwner, Verdict

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 60.0
# So many refusals in a row spend nothing; each one after them spends an attempt.
FREE_REFUSALS: Final = 9
# A wait of up to a day is believed, and ends a job whose deadline it passes. A longer one, of up to a month, is waited
# out where the deadline allows it. No limit has a longer period: a reset "in 55 years" is an instant, not a duration.
USUAL_HINT_S: Final = 24 * 3600.0
LONGEST_HINT_S: Final = 31 * USUAL_HINT_S
REFUSALS: Final = frozenset({ErrorCode.rate_limited, ErrorCode.overloaded})


@dataclass(frozen=True, slots=True)
class AttemptBudget:
    """What a job has spent and what it has left.

    `used`: requests spent so far, this one included. `held`: attempts so far that spent nothing. `refusals`: how many
    attempts in a row before this one were refused for the moment. `left_s`: seconds to the deadline.
    """

    used: int
    max_attempts: int
    held: int
    refusals: int
    left_s: float


@dataclass(frozen=True, slots=True)
class Retry:
    """Queue the job again, to start after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Queue the job again, to start after `delay_s` at the earliest; `counts`: the request spends an attempt.

    `waits_for`: a value of `jobs_v1.waiting_for`. `refusals`: how many in a row there are with this one.
    """

    delay_s: float
    waits_for: Literal["endpoint_paused", "limit", "retry"]
    counts: bool = False
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Give_up:
    """Fail the job: the failure is permanent, the attempts are used, or the next start would miss the deadline."""

    reason: Literal["permanent", "attempts", "deadline"]


Step = Retry | Hold | Give_up


def decide(failure: Failure, budget: AttemptBudget, *, verdict: Verdict, sent: bool, jitter: float) -> Step:
    """Say what to do after `failure`.

    `verdict`: whose it is, by `endpoint_health`. `sent`: the endpoint may have seen the request. `jitter`: chance in
    [0, 1). The endpoint's trouble holds the job, and spends an attempt only where the request may have been billed.
    Trouble of one job alone that was not sent holds it too, ever longer; what was sent is tried again within the
    budget. A refusal for the moment spends nothing at first.
    """
    if verdict.blame is FailureOwner.endpoint:
        return _hold_for_endpoint(failure, budget, hold_s=verdict.hold_s, jitter=jitter)
    troubled = failure.trouble == "endpoint"
    if not sent and (troubled or failure.code is ErrorCode.out_of_resources):
        return Hold((0.5 + jitter / 2) * backoff_s(budget.held), "retry")
    if not (failure.retryable or troubled):
        return Give_up("permanent")
    if is_refusal(failure):
        return _hold_for_limit(failure, budget, jitter=jitter)
    if _is_spent(failure, budget):
        return Give_up("attempts")
    delay_s = _asked_s(failure, budget) + jitter * backoff_s(budget.used)
    return Retry(delay_s) if delay_s < budget.left_s else Give_up("deadline")


def is_refusal(failure: Failure) -> bool:
    """Say whether the endpoint had no room for the request at the moment and did nothing for it."""
    return failure.code in REFUSALS and failure.retryable and failure.billed == "no"


def may_repeat(failure: Failure, *, retry_partial: bool, retry_ambiguous: bool) -> bool:
    """Say whether an endpoint's two settings about paying twice allow another request after `failure`."""
    allowed = under_policy(
        replace(failure, retryable=True), retry_partial=retry_partial, retry_ambiguous=retry_ambiguous
    )
    return allowed.retryable


def backoff_s(used: int) -> float:
    """Return the longest wait after `used` requests: 0.5 s doubling up to 60 s. Full jitter draws below it."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(max(used - 1, 0), 32))


def _hold_for_endpoint(failure: Failure, budget: AttemptBudget, *, hold_s: float, jitter: float) -> Step:
    counts = failure.billed != "no"
    if counts and _is_spent(failure, budget):
        return Give_up("attempts")
    # Up to a quarter more, so that they do not all come back in the same moment.
    return Hold(min(LONGEST_WAIT_S, hold_s * (1 + jitter / 4)), "endpoint_paused", counts=counts)


def _hold_for_limit(failure: Failure, budget: AttemptBudget, *, jitter: float) -> Step:
    refusals = budget.refusals + 1
    counts = refusals > FREE_REFUSALS
    if counts and _is_spent(failure, budget):
        return Give_up("attempts")
    delay_s = _asked_s(failure, budget) + jitter * backoff_s(refusals)
    if delay_s >= budget.left_s:
        return Give_up("deadline")
    return Hold(delay_s, "limit", counts=counts, refusals=refusals)


def _is_spent(failure: Failure, budget: AttemptBudget) -> bool:
    return budget.used >= min(budget.max_attempts, failure.tries or budget.max_attempts)


def _asked_s(failure: Failure, budget: AttemptBudget) -> float:
    """Return the wait that the endpoint asked for; 0 for one that cannot be meant."""
    asked_s = failure.retry_after_s or 0.0
    is_meant = asked_s <= USUAL_HINT_S or (asked_s <= LONGEST_HINT_S and asked_s < budget.left_s)
    return asked_s if is_meant else 0.0
