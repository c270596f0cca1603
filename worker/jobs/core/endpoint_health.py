"""Decides whose trouble a failed call is, and when an endpoint rests. Pure; called by `jobs.store.endpoints`.

An endpoint that refuses everybody must not fail everybody's jobs; a job that alone provokes a refusal must not hold
everybody back. So trouble needs two different jobs, and an answer to a later call speaks for the endpoint. What counts
is when a call *began*: after a key has expired, the calls in flight may end well for minutes. All ages are in seconds.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from worker.core.failure import MEANINGS, ErrorCode, Failure

# From an endpoint's pause to its first probe; the later ones come ever more slowly.
PROBE_S: Final = 5.0
# The longest wait between two probes, and of a job that is held alone.
LONGEST_WAIT_S: Final = 300.0
# Before a held job may start again; all of them are due when the endpoint is back.
HOLD_S: Final = 5.0
# Of an endpoint that is back, so many starts in the first second, twice as many in each one after.
FIRST_STARTS: Final = 8
SLOW_S: Final = 10.0
# A job whose last attempts all met trouble, while others had answers since, is in trouble itself.
STUBBORN_ATTEMPTS: Final = 3

TROUBLE: Final = frozenset(code for code, fate in MEANINGS.items() if fate.trouble == "endpoint")
SICK: Final = frozenset(
    {
        ErrorCode.server_error, ErrorCode.bad_gateway, ErrorCode.overloaded, ErrorCode.request_timeout,
        ErrorCode.first_byte_timeout, ErrorCode.idle_timeout, ErrorCode.connection_lost,
    }
)  # fmt: skip
# Ours: they say nothing about an endpoint.
_OWN: Final = frozenset(
    {
        ErrorCode.invalid_request, ErrorCode.idempotency_conflict, ErrorCode.unknown_endpoint, ErrorCode.cancelled,
        ErrorCode.expired, ErrorCode.worker_lost, ErrorCode.internal_error, ErrorCode.out_of_resources,
    }
)  # fmt: skip


class State(StrEnum):
    """How an endpoint's jobs start: freely, not at all but for probes, or by and by."""

    open = "open"
    paused = "paused"
    slow = "slow"


class Cause(StrEnum):
    """Who paused an endpoint."""

    trouble = "trouble"
    breaker = "breaker"
    operator = "operator"


class CallSign(StrEnum):
    """What the end of a call says of its endpoint. `silent`: nothing."""

    answered = "answered"
    trouble = "trouble"
    sick = "sick"
    silent = "silent"


class FailureOwner(StrEnum):
    """Whose a failure is: the job's, which spends its budget on it, or the endpoint's, which the job waits out."""

    job = "job"
    endpoint = "endpoint"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose a failure is, and how long the job waits at the least where it is the endpoint's.

    `paused`: this attempt is what made the endpoint rest.
    """

    blame: FailureOwner
    hold_s: float = HOLD_S
    paused: bool = False


ALONE: Final = Verdict(FailureOwner.job)


def sign_of(found: Failure | None, *, timeout_s: float, total_s: float) -> CallSign:
    """Return what a call's end says of its endpoint; a refusal for the job's own fault is an answer too.

    `timeout_s` is what the call was given, `total_s` what the endpoint asks for: a job in a hurry proves nothing.
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
    """What all workers know of an endpoint. `since_s`: for how long it has been in its state.

    `answered_s`: how long ago the latest call began that was answered; `suspect_s`: how long ago the call of
    `suspect_job` began, the first that met trouble. `troubled_s`: how long ago the first call began that met trouble,
    if none was answered since.
    """

    state: State = State.open
    since_s: float = 0.0
    answered_s: float | None = None
    suspect_job: str | None = None
    suspect_s: float = 0.0
    troubled_s: float | None = None


class TroubledCall(NamedTuple):
    """A job that met trouble, in a call that began `began_s` ago.

    `answered_s` is what its own worker knows of answers. `stubborn_s`: how long ago its last attempt ended, if that and
    those before it (STUBBORN_ATTEMPTS of them) all met trouble; else None.
    """

    job_id: str
    began_s: float
    answered_s: float | None = None
    stubborn_s: float | None = None


def classify(stand: EndpointRecord, met: TroubledCall) -> tuple[FailureOwner, EndpointRecord]:
    """Say whose the trouble is, and how the endpoint stands after it."""
    if stand.state is State.paused or met.began_s > stand.since_s:
        # Known already; or in flight since before the endpoint's last change, about which it proves nothing.
        return FailureOwner.endpoint, stand
    answered_s = min((age for age in (stand.answered_s, met.answered_s) if age is not None), default=None)
    if _since(answered_s, met.began_s) or (met.stubborn_s is not None and _since(answered_s, met.stubborn_s)):
        return FailureOwner.job, stand
    if stand.suspect_job in (None, met.job_id) or _since(answered_s, stand.suspect_s):
        lasts = stand.troubled_s is not None and not _since(answered_s, stand.troubled_s)
        troubled_s = stand.troubled_s if lasts else met.began_s
        return FailureOwner.endpoint, replace(
            stand, suspect_job=met.job_id, suspect_s=met.began_s, troubled_s=troubled_s
        )
    return FailureOwner.endpoint, replace(stand, state=State.paused, since_s=0.0, suspect_job=None, troubled_s=None)


def _since(answered_s: float | None, age_s: float) -> bool:
    """Say whether a call that began since then was answered."""
    return answered_s is not None and answered_s < age_s


def hold_s(stand: EndpointRecord) -> float:
    """Return the wait of a job that trouble holds.

    While the endpoint is paused its probes decide when a job starts, and every held job must be due by then. A job that
    is held alone at an open endpoint starts by itself: it waits longer, the longer the trouble lasts.
    """
    return HOLD_S if stand.state is State.paused else wait_s(stand.troubled_s or 0.0)


def wait_s(lasted_s: float) -> float:
    """Return the wait to the next try at an endpoint whose trouble has lasted so long: 5 s, doubling to 5 min.

    Each wait is as long as all before it: by the age of the trouble alone, so that nothing has to count the tries.
    """
    return min(LONGEST_WAIT_S, PROBE_S + max(0.0, lasted_s))


def starts(slow_s: float) -> int:
    """Return how many jobs of an endpoint may start in this second, `slow_s` after it came back."""
    return FIRST_STARTS << min(max(int(slow_s), 0), int(SLOW_S))


class Ramp:
    """How many starts of slow endpoints are left in the present second, as one dispatcher counts them."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[int, int]] = {}

    def left(self, endpoint: str, slow_s: float) -> int:
        """Return how many more may start now."""
        second, spent = self._spent.get(endpoint, (-1, 0))
        return starts(slow_s) - (spent if second == int(slow_s) else 0)

    def spend(self, endpoint: str, slow_s: float, number: int) -> None:
        """Note starts of the present second."""
        left = self.left(endpoint, slow_s)
        self._spent[endpoint] = (int(slow_s), starts(slow_s) - left + number)
