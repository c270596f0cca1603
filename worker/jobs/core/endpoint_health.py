"""Decide if a failure belongs to the job or to the endpoint, and when an endpoint is paused. Pure.

An endpoint that refuses every request must not fail every job, and a single job that provokes a refusal must not pause
the endpoint. So a pause needs two different jobs, and an answer to a later call is evidence for the endpoint. The begin
of a call counts, not its end: after a key has expired, calls in flight may still succeed for minutes. All ages are in
seconds. Called by `jobs.store.endpoint_trouble`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from worker.core.failure import MEANINGS, ErrorCode, Failure

# From the start of a pause to the first probe; the waits between later probes grow.
PROBE_S: Final = 5.0
# The longest wait between two probes, and the longest wait of a job that is held alone.
LONGEST_WAIT_S: Final = 300.0
# The shortest hold of a job. All held jobs are due when the endpoint resumes.
HOLD_S: Final = 5.0
# Starts in the first second after an endpoint resumes; each later second allows twice as many.
FIRST_STARTS: Final = 8
SLOW_S: Final = 10.0
# If the last attempts of a job all met trouble while other jobs got answers, the failure is the job's.
STUBBORN_ATTEMPTS: Final = 3

TROUBLE: Final = frozenset(code for code, meaning in MEANINGS.items() if meaning.trouble == "endpoint")
SICK: Final = frozenset(
    {
        ErrorCode.server_error, ErrorCode.bad_gateway, ErrorCode.overloaded, ErrorCode.request_timeout,
        ErrorCode.first_byte_timeout, ErrorCode.idle_timeout, ErrorCode.connection_lost,
    }
)  # fmt: skip
# Our own errors: no evidence about an endpoint.
_OWN: Final = frozenset(
    {
        ErrorCode.invalid_request, ErrorCode.idempotency_conflict, ErrorCode.unknown_endpoint, ErrorCode.cancelled,
        ErrorCode.expired, ErrorCode.worker_lost, ErrorCode.internal_error, ErrorCode.out_of_resources,
    }
)  # fmt: skip


class State(StrEnum):
    """The state of an endpoint: its jobs start freely, only probes start, or a growing number of jobs starts."""

    open = "open"
    paused = "paused"
    slow = "slow"


class Cause(StrEnum):
    """The cause of an endpoint's pause."""

    trouble = "trouble"
    breaker = "breaker"
    operator = "operator"


class CallSign(StrEnum):
    """The evidence that the end of a call gives about its endpoint. `silent`: none."""

    answered = "answered"
    trouble = "trouble"
    sick = "sick"
    silent = "silent"


class FailureOwner(StrEnum):
    """The owner of a failure: the job, which spends an attempt, or the endpoint, for which the job waits."""

    job = "job"
    endpoint = "endpoint"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The owner of a failure. `hold_s`: how long the job waits at least, if the owner is the endpoint.

    `paused`: this attempt paused the endpoint.
    """

    owner: FailureOwner
    hold_s: float = HOLD_S
    paused: bool = False


ALONE: Final = Verdict(FailureOwner.job)


def sign_of(found: Failure | None, *, timeout_s: float, total_s: float) -> CallSign:
    """Return the evidence that a call's end gives; a refusal for the job's own fault is an answer too.

    `timeout_s`: the limit of this call. `total_s`: the endpoint's. A timeout under a shorter limit proves nothing.
    """
    if found is None:
        return CallSign.answered
    if found.trouble == "endpoint":
        return CallSign.trouble
    if found.code in SICK:
        return CallSign.sick
    if found.code is ErrorCode.total_timeout:
        return CallSign.silent if timeout_s < total_s else CallSign.sick
    return CallSign.silent if found.code in _OWN else CallSign.answered


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """The shared state of an endpoint. All fields in seconds are ages.

    `since_s`: of the state. `answered_s`: of the latest call with an answer, from its begin. `suspect_job`: the first
    job that met trouble; `suspect_s`: of its call. `troubled_s`: of the first call in trouble, if no call was answered
    since.
    """

    state: State = State.open
    since_s: float = 0.0
    answered_s: float | None = None
    suspect_job: str | None = None
    suspect_s: float = 0.0
    troubled_s: float | None = None


class TroubledCall(NamedTuple):
    """A job that met trouble, in a call that began `began_s` ago.

    `answered_s`: age of the latest answered call that its own worker knows. `stubborn_s`: age of the end of the job's
    previous attempt, if the previous STUBBORN_ATTEMPTS attempts all met trouble; else None.
    """

    job_id: str
    began_s: float
    answered_s: float | None = None
    stubborn_s: float | None = None


def classify(endpoint: EndpointRecord, call: TroubledCall) -> tuple[FailureOwner, EndpointRecord]:
    """Return the owner of a failure, and the endpoint's state after it."""
    if endpoint.state is State.paused or call.began_s > endpoint.since_s:
        # The pause is known; or the call began before the endpoint's last change and proves nothing.
        return FailureOwner.endpoint, endpoint
    answered_s = min((age for age in (endpoint.answered_s, call.answered_s) if age is not None), default=None)
    if _since(answered_s, call.began_s) or (call.stubborn_s is not None and _since(answered_s, call.stubborn_s)):
        return FailureOwner.job, endpoint
    if endpoint.suspect_job in (None, call.job_id) or _since(answered_s, endpoint.suspect_s):
        lasts = endpoint.troubled_s is not None and not _since(answered_s, endpoint.troubled_s)
        troubled_s = endpoint.troubled_s if lasts else call.began_s
        return FailureOwner.endpoint, replace(
            endpoint, suspect_job=call.job_id, suspect_s=call.began_s, troubled_s=troubled_s
        )
    paused = replace(endpoint, state=State.paused, since_s=0.0, suspect_job=None, troubled_s=None)
    return FailureOwner.endpoint, paused


def _since(answered_s: float | None, age_s: float) -> bool:
    """Say whether a call was answered that began later than `age_s` ago."""
    return answered_s is not None and answered_s < age_s


def hold_s(endpoint: EndpointRecord) -> float:
    """Return the wait of a job that the endpoint holds.

    During a pause the probes decide when jobs start, and every held job must be due by then. A job that is held alone
    at an open endpoint starts by itself: its wait grows with the duration of the trouble.
    """
    return HOLD_S if endpoint.state is State.paused else wait_s(endpoint.troubled_s or 0.0)


def wait_s(lasted_s: float) -> float:
    """Return the wait before the next try at an endpoint whose trouble has lasted `lasted_s`: 5 s, doubling to 5 min.

    Each wait is as long as all earlier waits together, so the age of the trouble is enough and no tries are counted.
    """
    return min(LONGEST_WAIT_S, PROBE_S + max(0.0, lasted_s))


def starts(slow_s: float) -> int:
    """Return how many jobs of an endpoint may start in this second, `slow_s` after it resumed."""
    return FIRST_STARTS << min(max(int(slow_s), 0), int(SLOW_S))


class Ramp:
    """Counts the starts of slow endpoints in the current second, for one dispatcher."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[int, int]] = {}

    def left(self, endpoint: str, slow_s: float) -> int:
        """Return how many more jobs may start now."""
        second, spent = self._spent.get(endpoint, (-1, 0))
        return starts(slow_s) - (spent if second == int(slow_s) else 0)

    def spend(self, endpoint: str, slow_s: float, number: int) -> None:
        """Count starts in the current second."""
        left = self.left(endpoint, slow_s)
        self._spent[endpoint] = (int(slow_s), starts(slow_s) - left + number)
