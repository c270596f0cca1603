"""The owner of a failed call: trouble of two jobs pauses the endpoint, trouble of one job counts against the job."""

from dataclasses import replace

import pytest

from worker.core.failure import ErrorCode, failure
from worker.jobs.core.endpoint_health import (
    CallSign,
    EndpointRecord,
    FailureOwner,
    Ramp,
    State,
    TroubledCall,
    classify,
    hold_s,
    sign_of,
    starts,
    wait_s,
)

LONG_S = 1000.0
OPEN = EndpointRecord(since_s=LONG_S)
SUSPECTED = replace(OPEN, suspect_job="a", suspect_s=10.0)


@pytest.mark.parametrize(
    ("code", "sign"),
    [
        (None, CallSign.answered),
        (ErrorCode.bad_request, CallSign.answered),
        (ErrorCode.content_refused, CallSign.answered),
        (ErrorCode.rate_limited, CallSign.answered),
        (ErrorCode.stream_truncated, CallSign.answered),
        (ErrorCode.unauthorized, CallSign.trouble),
        (ErrorCode.quota_exhausted, CallSign.trouble),
        (ErrorCode.connect_failed, CallSign.trouble),
        (ErrorCode.dns_failed, CallSign.trouble),
        (ErrorCode.tls_failed, CallSign.trouble),
        (ErrorCode.server_error, CallSign.sick),
        (ErrorCode.bad_gateway, CallSign.sick),
        (ErrorCode.overloaded, CallSign.sick),
        (ErrorCode.first_byte_timeout, CallSign.sick),
        (ErrorCode.idle_timeout, CallSign.sick),
        (ErrorCode.connection_lost, CallSign.sick),
        (ErrorCode.cancelled, CallSign.silent),
        (ErrorCode.worker_lost, CallSign.silent),
        (ErrorCode.internal_error, CallSign.silent),
    ],
)
def test_the_end_of_a_call_is_a_sign_of_its_endpoint(code: ErrorCode | None, sign: CallSign) -> None:
    found = None if code is None else failure(code)
    assert sign_of(found, timeout_s=60.0, total_s=60.0) == sign


@pytest.mark.parametrize(("timeout_s", "sign"), [(5.0, CallSign.silent), (60.0, CallSign.sick), (90.0, CallSign.sick)])
def test_a_job_in_a_hurry_proves_nothing(timeout_s: float, sign: CallSign) -> None:
    assert sign_of(failure(ErrorCode.total_timeout), timeout_s=timeout_s, total_s=60.0) == sign


def test_the_first_job_in_trouble_is_a_suspect() -> None:
    blame, stand = classify(OPEN, TroubledCall("a", began_s=1.0))

    assert (blame, stand) == (FailureOwner.endpoint, replace(OPEN, suspect_job="a", suspect_s=1.0, troubled_s=1.0))


def test_a_second_job_in_trouble_pauses_the_endpoint() -> None:
    blame, stand = classify(SUSPECTED, TroubledCall("b", began_s=1.0))

    assert (blame, stand.state, stand.since_s, stand.suspect_job) == (FailureOwner.endpoint, State.paused, 0.0, None)


def test_one_job_alone_pauses_no_endpoint_however_often_it_fails() -> None:
    stand = OPEN
    for _ in range(20):
        blame, stand = classify(stand, TroubledCall("a", began_s=1.0))
        assert (blame, stand.state) == (FailureOwner.endpoint, State.open)


def test_the_waits_for_an_endpoint_double_from_five_seconds_to_five_minutes() -> None:
    waits, lasted_s = [], 0.0
    for _ in range(9):
        waits.append(wait_s(lasted_s))
        lasted_s += waits[-1]

    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert wait_s(-1.0) == 5.0


def test_a_job_that_meets_trouble_alone_waits_by_the_age_of_its_trouble() -> None:
    _, stand = classify(OPEN, TroubledCall("a", began_s=0.0))
    assert hold_s(stand) == 5.0

    # A minute later, and again.
    _, stand = classify(replace(stand, suspect_s=60.0, troubled_s=60.0), TroubledCall("a", began_s=0.0))
    assert (hold_s(stand), stand.suspect_s) == (65.0, 0.0)
    _, stand = classify(replace(stand, suspect_s=65.0, troubled_s=125.0), TroubledCall("a", began_s=0.0))
    assert hold_s(stand) == 130.0


@pytest.mark.parametrize("suspect", ["a", "b"])
def test_an_answer_begins_the_waits_again(suspect: str) -> None:
    troubled = replace(OPEN, suspect_job=suspect, suspect_s=200.0, troubled_s=250.0, answered_s=100.0)

    _, stand = classify(troubled, TroubledCall("a", began_s=1.0))

    assert (stand.state, stand.troubled_s, hold_s(stand)) == (State.open, 1.0, 6.0)


def test_jobs_of_a_paused_endpoint_are_due_before_its_next_probe() -> None:
    _, stand = classify(replace(SUSPECTED, troubled_s=200.0), TroubledCall("b", began_s=1.0))

    assert (stand.state, stand.troubled_s, hold_s(stand)) == (State.paused, None, 5.0)
    assert hold_s(EndpointRecord(State.paused, since_s=4000.0)) == 5.0


@pytest.mark.parametrize("known_to", ["all", "its own worker"])
def test_an_answer_since_clears_the_suspicion(known_to: str) -> None:
    stand = replace(SUSPECTED, answered_s=5.0 if known_to == "all" else None)
    met = TroubledCall("b", began_s=1.0, answered_s=5.0 if known_to != "all" else None)

    blame, after = classify(stand, met)

    assert (blame, after.state, after.suspect_job, after.suspect_s) == (FailureOwner.endpoint, State.open, "b", 1.0)


def test_an_answer_from_before_clears_nothing() -> None:
    assert classify(replace(SUSPECTED, answered_s=11.0), TroubledCall("b", began_s=1.0))[1].state is State.paused


@pytest.mark.parametrize("suspected", [OPEN, SUSPECTED], ids=["nobody suspected", "another suspected"])
def test_a_job_in_trouble_while_a_later_call_was_answered_is_to_blame_itself(suspected: EndpointRecord) -> None:
    stand = replace(suspected, answered_s=0.5)

    assert classify(stand, TroubledCall("b", began_s=1.0)) == (FailureOwner.job, stand)
    assert classify(suspected, TroubledCall("b", began_s=1.0, answered_s=0.5)) == (FailureOwner.job, suspected)


def test_calls_that_end_well_though_they_began_before_the_trouble_prove_nothing() -> None:
    # A key expired three seconds ago; calls that began earlier still return answers after ten seconds.
    blame, stand = classify(replace(SUSPECTED, suspect_s=2.5, answered_s=3.1), TroubledCall("b", began_s=2.0))

    assert (blame, stand.state) == (FailureOwner.endpoint, State.paused)


def test_a_job_whose_every_attempt_met_trouble_while_others_had_answers_is_to_blame() -> None:
    stand = replace(OPEN, answered_s=4.0)

    assert classify(stand, TroubledCall("a", began_s=1.0, stubborn_s=5.0))[0] is FailureOwner.job
    assert classify(stand, TroubledCall("a", began_s=1.0, stubborn_s=3.0))[0] is FailureOwner.endpoint
    assert classify(stand, TroubledCall("a", began_s=1.0))[0] is FailureOwner.endpoint


@pytest.mark.parametrize("answered_s", [None, 0.5])
def test_a_paused_endpoint_holds_all_late_failures(answered_s: float | None) -> None:
    stand = EndpointRecord(State.paused, since_s=3.0, answered_s=answered_s)

    assert classify(stand, TroubledCall("a", began_s=1.0)) == (FailureOwner.endpoint, stand)


@pytest.mark.parametrize("state", [State.slow, State.open])
def test_a_call_in_flight_through_a_pause_is_held_and_proves_nothing(state: State) -> None:
    stand = EndpointRecord(state, since_s=3.0, answered_s=4.0, suspect_job="b", suspect_s=1.0)

    assert classify(stand, TroubledCall("a", began_s=20.0)) == (FailureOwner.endpoint, stand)


def test_a_resumed_endpoint_is_paused_again_by_two_jobs() -> None:
    _, first = classify(EndpointRecord(State.slow, since_s=3.0), TroubledCall("a", began_s=1.0))
    _, second = classify(first, TroubledCall("b", began_s=0.9))

    assert (first.state, second.state) == (State.slow, State.paused)


def test_starts_double_each_second() -> None:
    assert [starts(second) for second in (0.0, 0.9, 1.0, 2.5, 3.0)] == [8, 8, 16, 32, 64]
    assert starts(1e9) == starts(10.0) == 8192


def test_starts_of_this_second_count_against_its_limit() -> None:
    ramp = Ramp()
    ramp.spend("a", 1.2, 10)

    assert (ramp.left("a", 1.9), ramp.left("b", 1.9), ramp.left("a", 2.0)) == (6, 16, 32)
    ramp.spend("a", 1.9, 6)
    assert ramp.left("a", 1.95) == 0
