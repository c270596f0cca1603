"""ENDPOINTS, on both databases: causes of a pause, claims during it, and its end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, select, update

from tests.jobs.store.attempts import attempt_record, write
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.core.failure import ErrorCode
from worker.core.lifecycle import HOLD, Outcome
from worker.jobs.core.endpoint_health import Cause, Classification, FailureOwner, State
from worker.jobs.store import due, endpoint_breaker, endpoint_trouble, endpoints
from worker.jobs.store.claim import Claim, claim
from worker.jobs.store.due import FIRST
from worker.jobs.store.endpoint_breaker import BreakerTrip, FailingCall
from worker.jobs.store.endpoint_trouble import TroubleReport
from worker.jobs.store.endpoints import AnswerTimes, EndpointRow, ProbeSucceeded
from worker.store.clock import from_now, seconds_until
from worker.store.tables import attempts, jobs
from worker.store.tables import endpoints as table
from worker.store.transitions import ClaimRequest

HELD = (FailureOwner.endpoint, False)
PAUSED = (FailureOwner.endpoint, True)
ALONE = (FailureOwner.job, False)
A, B, C = (f"00000000-0000-4000-8000-00000000000{letter}" for letter in "abc")


def trouble(job_id: str, *, began_s: float = 0.1, answered_s: float | None = None, **changes: Any) -> TroubleReport:
    plain = TroubleReport("default", job_id, 1, ErrorCode.unauthorized, began_s, answered_s)
    return replace(plain, **changes)


def verdicts(engine: Engine, *met: TroubleReport) -> list[Classification]:
    with engine.begin() as connection:
        return endpoint_trouble.note_troubles(connection, met)


def judged(engine: Engine, *met: TroubleReport) -> list[tuple[FailureOwner, bool]]:
    """Return, per call, the owner of the trouble and whether this call paused the endpoint."""
    return [(verdict.owner, verdict.paused) for verdict in verdicts(engine, *met)]


def seen(engine: Engine, name: str = "default") -> EndpointRow:
    with engine.begin() as connection:
        return endpoints.read_all(connection)[name]


def put(engine: Engine, state: State, cause: Cause | None = None, *, since_s: float = 60.0, **values: Any) -> None:
    """Write an endpoint that has been in `state` for `since_s` seconds."""
    with engine.begin() as connection:
        row = {"name": "default", "state": state, "cause": cause, "since": from_now(-since_s), **values}
        connection.execute(insert(table).values(row))


def paused(engine: Engine, cause: Cause = Cause.trouble, *, probe_in_s: float = -1.0, **values: Any) -> None:
    put(engine, State.paused, cause, probe_at=from_now(probe_in_s), **values)


def waiting(engine: Engine, number: int = 1, *, endpoint: str = "default", **fields: Any) -> list[str]:
    """Return the ids of jobs that wait for an endpoint, oldest first."""
    made = [str(accept_all(engine, entry(job(**fields)))[0].job_id) for _ in range(number)]
    with engine.begin() as connection:
        for age, job_id in enumerate(reversed(made)):
            connection.execute(
                update(jobs).where(jobs.c.id == job_id).values(run_at=from_now(-1.0 - age), endpoint=endpoint)
            )
    return made


def test_trouble_of_one_job_pauses_no_endpoint(engine: Engine) -> None:
    assert [judged(engine, trouble(A)) for _ in range(3)] == [[HELD]] * 3

    assert seen(engine).state is State.open


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after another"])
def test_trouble_of_two_jobs_pauses_the_endpoint(engine: Engine, together: bool) -> None:
    both = [trouble(A), trouble(B, code=ErrorCode.quota_exhausted)]

    said = judged(engine, *both) if together else [judged(engine, each)[0] for each in both]

    assert said == [HELD, PAUSED]
    found = seen(engine)
    assert (found.state, found.cause, found.reason) == (State.paused, Cause.trouble, "quota_exhausted")
    assert found.probe_job is None
    assert found.probe_in_s == pytest.approx(5.0, abs=2.0)
    assert judged(engine, trouble(C)) == [HELD], "the pause is reported once"


# Ages with parts of a microsecond, because instants in a database have none. Many, because an age that is rounded down
# only matters if the clock did not move between two statements.
EXACT_S = [0.01 + number * 1e-8 for number in range(1, 101)]


def test_the_first_trouble_at_a_new_endpoint_counts_however_exact_its_age(engine: Engine) -> None:
    for number, age_s in enumerate(EXACT_S):
        verdicts(engine, trouble(A, endpoint=f"e{number}", began_s=age_s))

    suspects = rows(engine, "SELECT suspect_job FROM afterword_endpoints")
    assert [str(row.suspect_job) for row in suspects] == [A] * len(EXACT_S)


def test_trouble_at_one_endpoint_does_not_count_for_another(engine: Engine) -> None:
    assert judged(engine, trouble(A), trouble(B, endpoint="other")) == [HELD, HELD]


def test_an_answer_to_another_worker_counts_for_the_endpoint(engine: Engine) -> None:
    judged(engine, trouble(A, began_s=30.0))
    with engine.begin() as connection:
        endpoints.note_answers(connection, {"default": AnswerTimes(10.0, 10.0), "other": AnswerTimes(1.0, 1.0)})
        endpoints.note_answers(connection, {"default": AnswerTimes(20.0, 20.0)})

    assert judged(engine, trouble(B, began_s=15.0)) == [ALONE]
    assert judged(engine, trouble(C, began_s=5.0)) == [HELD], "a new suspect: the answer cleared the old one"
    assert judged(engine, trouble(B, began_s=4.0)) == [PAUSED]


def failed_attempts(engine: Engine, *codes: str, ended_s: float, whose: str | None = None) -> str:
    """Return a job whose attempts ended with these codes, the last one `ended_s` ago.

    `whose` is the owner of the trouble; None: written by an older release.
    """
    mine, (job_id,) = worker(engine), waiting(engine)
    for code in codes:
        claimed = claim_one(engine, mine, job_id)
        assert claimed is not None
        held = attempt_record(claimed, HOLD, Outcome.failed, counts=False, answer=None)
        columns = {"billed": "no", "error_code": code, "usage_requested": False, "trouble": whose}
        write(engine, replace(held, attempt=columns))
    with engine.begin() as connection:
        connection.execute(update(attempts).values(finished_at=from_now(-ended_s)))
    return job_id


@pytest.mark.parametrize(
    ("codes", "whose", "verdict"),
    [
        (("unauthorized", "quota_exhausted", "connect_failed"), "endpoint", ALONE),
        (("provider_error", "provider_error", "provider_error"), "endpoint", ALONE),
        (("unauthorized", "unauthorized"), "endpoint", HELD),
        (("unauthorized", "unauthorized", "unauthorized"), "job", HELD),
        (("unauthorized", "quota_exhausted", "connect_failed"), None, ALONE),
        (("unauthorized", "server_error", "unauthorized"), None, HELD),
        (("provider_error", "provider_error", "provider_error"), None, HELD),
    ],
    ids=[
        "three times", "inside an answer", "twice", "not the endpoint's", "by a release before",
        "not always, by a release before", "inside an answer, by a release before",
    ],
)  # fmt: skip
def test_a_job_that_always_meets_trouble_while_others_do_not_is_to_blame(
    engine: Engine, codes: tuple[str, ...], whose: str | None, verdict: tuple[FailureOwner, bool]
) -> None:
    job_id = failed_attempts(engine, *codes, ended_s=20.0, whose=whose)
    with engine.begin() as connection:
        endpoints.note_answers(connection, {"default": AnswerTimes(10.0, 10.0)})

    assert judged(engine, trouble(job_id, attempt=len(codes) + 1)) == [verdict]


def test_a_job_that_always_meets_trouble_as_all_others_do_is_held(engine: Engine) -> None:
    job_id = failed_attempts(engine, *3 * ["unauthorized"], ended_s=20.0)
    with engine.begin() as connection:
        endpoints.note_answers(connection, {"default": AnswerTimes(30.0, 30.0)})

    assert judged(engine, trouble(job_id, attempt=4)) == [HELD]


def sick(number: int, **changes: Any) -> FailingCall:
    job_id = f"00000000-0000-4000-8000-{number:012}"
    return replace(FailingCall("default", job_id, ErrorCode.first_byte_timeout, 31.0, None), **changes)


def counted(engine: Engine, *ones: FailingCall) -> list[bool]:
    with engine.begin() as connection:
        return endpoint_breaker.count_in_a_row(connection, ones)


def answered(engine: Engine, came_s: float) -> None:
    with engine.begin() as connection:
        endpoints.note_answers(connection, {"default": AnswerTimes(came_s, came_s)})


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after another"])
def test_ten_jobs_in_a_row_pause_the_endpoint_across_workers(engine: Engine, together: bool) -> None:
    ten = [sick(number) for number in range(10)]

    opened = counted(engine, *ten) if together else [counted(engine, each)[0] for each in ten]

    assert opened == [*9 * [False], True]
    found = seen(engine)
    assert (found.state, found.cause, found.reason) == (State.paused, Cause.breaker, "first_byte_timeout")
    assert one(engine, "SELECT sick_jobs FROM afterword_endpoints").sick_jobs is None
    assert counted(engine, sick(11)) == [False]


def test_the_first_failing_call_at_a_new_endpoint_counts_however_exact_its_age(engine: Engine) -> None:
    for number, age_s in enumerate(EXACT_S):
        counted(engine, sick(1, endpoint=f"e{number}", began_s=age_s))

    counts = rows(engine, "SELECT sick_jobs FROM afterword_endpoints")
    assert [row.sick_jobs is not None for row in counts] == [True] * len(EXACT_S)


def test_an_answer_to_any_worker_ends_the_row(engine: Engine) -> None:
    counted(engine, *(sick(number) for number in range(9)))
    answered(engine, 5.0)
    assert counted(engine, *(sick(number) for number in range(9, 18))) == 9 * [False]

    # A report of an older answer changes nothing.
    answered(engine, 10.0)
    assert counted(engine, sick(18)) == [True]


@pytest.mark.parametrize("known_to", ["all", "its own worker"])
def test_an_endpoint_with_a_recent_answer_is_not_silent(engine: Engine, known_to: str) -> None:
    counted(engine, *(sick(number) for number in range(9)))
    if known_to == "all":
        answered(engine, 1.0)
        counted(engine, *(sick(number) for number in range(9)))

    assert counted(engine, sick(9, quiet_s=None if known_to == "all" else 1.0)) == [False]


def test_the_same_job_is_counted_once(engine: Engine) -> None:
    assert not any(counted(engine, *(sick(number % 9) for number in range(100))))


def test_calls_in_flight_when_the_endpoint_resumed_do_not_count(engine: Engine) -> None:
    put(engine, State.slow, since_s=20.0)

    assert counted(engine, *(sick(number) for number in range(20))) == 20 * [False]
    assert counted(engine, *(sick(number, began_s=10.0) for number in range(10))) == [*9 * [False], True]


def test_failures_of_one_endpoint_do_not_count_for_another(engine: Engine) -> None:
    both = [sick(number, endpoint=("default", "other")[number % 2]) for number in range(19)]

    assert counted(engine, *both) == [*18 * [False], True]
    assert seen(engine, "other").state is State.open


def test_a_breaker_pauses_an_endpoint_once(engine: Engine) -> None:
    weak = BreakerTrip("default", ErrorCode.server_error)
    with engine.begin() as connection:
        assert endpoint_breaker.open_breaker(connection, [weak, weak]) == [True, False]

    found = seen(engine)
    assert (found.state, found.cause, found.reason) == (State.paused, Cause.breaker, "server_error")


def test_only_the_probe_of_a_paused_endpoint_is_claimed(engine: Engine) -> None:
    mine, ids = worker(engine), waiting(engine, 3)
    (elsewhere,) = waiting(engine, endpoint="other")
    paused(engine, probe_job=ids[1])

    with engine.begin() as connection:
        claims = claim(connection, [ClaimRequest(job_id, mine) for job_id in (*ids, elsewhere)])

    assert [None if found is None else (found.job_id, found.probe) for found in claims] == [
        None, (ids[1], True), None, (elsewhere, False),
    ]  # fmt: skip


@pytest.mark.parametrize("state", [State.slow, State.open])
def test_of_any_other_endpoint_jobs_are_claimed(engine: Engine, state: State) -> None:
    (job_id,) = waiting(engine)
    put(engine, state)

    found = claim_one(engine, worker(engine), job_id)

    assert isinstance(found, Claim)
    assert not found.probe


def test_all_queued_jobs_of_a_paused_endpoint_wait_for_it(engine: Engine) -> None:
    waiting(engine, 2)
    paused(engine)

    assert {row.waiting_for for row in rows(engine, "SELECT waiting_for FROM jobs_v1")} == {"endpoint_paused"}


def test_lanes_of_a_paused_endpoint_are_skipped_in_one_step(engine: Engine) -> None:
    for name in ("aa", "zz"):
        waiting(engine, endpoint=name)
    for number in range(12):
        waiting(engine, endpoint="mm", tenant=f"t{number:02}")
    steps: list[str] = []

    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *seen: steps.append(seen[2]))
        found, _ = due.lanes(connection, skipped={"mm"})
        again, _ = due.lanes(connection, after=("mm", "t03", 5), skipped={"mm"})
        nothing, _ = due.lanes(connection, skipped={"aa", "mm", "zz"})

    assert [lane.endpoint for lane in found] == ["aa", "zz"]
    assert {lane.endpoint for lane in again} == {"aa", "zz"}
    assert nothing == []
    assert len(steps) <= 15


def probe(engine: Engine, after: due.LanePosition = FIRST, *, last: str | None = None) -> tuple[str | None, Any]:
    with engine.begin() as connection:
        row, place = due.probe(connection, "default", after=after, last=last)
    return (None if row is None else row.row_id), place


def test_each_probe_is_another_job(engine: Engine) -> None:
    ids = waiting(engine, 4)
    asked, last, place = [], None, FIRST
    for _ in range(4):
        last, place = probe(engine, place, last=last)
        asked.append(last)
        # A probe that fails is held: the job is due again, behind all others.
        with engine.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.id == last).values(run_at=from_now(-0.01)))

    assert asked == ids


def test_probes_go_round_the_lanes(engine: Engine) -> None:
    first, second, urgent = (
        waiting(engine, 2, tenant="a"), waiting(engine, 2, tenant="b"), waiting(engine, 2, priority=0, tenant="a"),
    )  # fmt: skip
    waiting(engine, 2, endpoint="another")
    asked, place = [], FIRST
    for _ in range(4):
        job_id, place = probe(engine, place, last=asked[-1] if asked else None)
        asked.append(job_id)

    assert asked == [urgent[0], first[0], second[0], urgent[0]]


def test_the_only_job_is_probed_again(engine: Engine) -> None:
    (only,) = waiting(engine)

    assert probe(engine, last=only)[0] == only


def test_a_job_that_is_not_due_is_no_probe(engine: Engine) -> None:
    (later,) = waiting(engine)
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == later).values(run_at=from_now(60.0)))

    assert probe(engine)[0] is None


def sent(engine: Engine, job_id: str | None, *, rested_s: float = 0.0) -> bool:
    with engine.begin() as connection:
        return endpoints.send_probe(connection, "default", job_id, paused_s=rested_s)


@pytest.mark.parametrize("cause", [Cause.trouble, Cause.breaker])
def test_one_probe_goes_out_in_five_seconds_from_any_dispatcher(engine: Engine, cause: Cause) -> None:
    paused(engine, cause)

    assert [sent(engine, A), sent(engine, B)] == [True, False]
    found = seen(engine)
    assert found.probe_job == A
    assert found.probe_in_s == pytest.approx(5.0, abs=2.0)


@pytest.mark.parametrize(("rested_s", "wait_s"), [(5.0, 10.0), (100.0, 105.0), (86400.0, 300.0)])
def test_probes_come_more_slowly_the_longer_a_pause_lasts(engine: Engine, rested_s: float, wait_s: float) -> None:
    paused(engine)

    assert sent(engine, A, rested_s=rested_s)
    assert seen(engine).probe_in_s == pytest.approx(wait_s, abs=2.0)


def test_a_probe_that_waits_for_a_slot_has_more_time(engine: Engine) -> None:
    paused(engine, probe_job=A)

    assert sent(engine, None)
    assert (seen(engine).probe_job, seen(engine).is_overdue) == (A, False)


def test_an_endpoint_paused_by_an_operator_is_not_probed(engine: Engine) -> None:
    paused(engine, Cause.operator)

    assert not seen(engine).is_overdue
    assert not sent(engine, A)


def passed(engine: Engine, *, began_s: float) -> float | None:
    with engine.begin() as connection:
        return endpoints.resume_probed(connection, [ProbeSucceeded("default", began_s)])[0]


@pytest.mark.parametrize("cause", [Cause.trouble, Cause.breaker])
def test_an_answered_probe_lets_the_endpoint_start_slowly(engine: Engine, cause: Cause) -> None:
    paused(engine, cause, since_s=60.0, probe_job=A)

    assert passed(engine, began_s=1.0) == pytest.approx(60.0, abs=5.0)
    found = seen(engine)
    assert (found.state, found.cause, found.reason, found.probe_job) == (State.slow, None, None, None)
    assert passed(engine, began_s=1.0) is None, "the resumption is reported once"


def test_a_probe_of_an_earlier_pause_ends_nothing(engine: Engine) -> None:
    paused(engine, since_s=10.0)

    assert passed(engine, began_s=11.0) is None
    assert seen(engine).state is State.paused


def test_an_operators_pause_is_ended_by_the_operator_alone(engine: Engine) -> None:
    paused(engine, probe_job=A)
    with engine.begin() as connection:
        endpoints.pause(connection, "default")

    assert passed(engine, began_s=0.0) is None
    assert (seen(engine).cause, seen(engine).probe_job, seen(engine).probe_in_s) == (Cause.operator, None, None)
    with engine.begin() as connection:
        assert endpoints.resume(connection, "default")
        assert not endpoints.resume(connection, "default")
        assert not endpoints.resume(connection, "nobody's")
    assert seen(engine).state is State.open


def held_alone(engine: Engine, *, since_s: float, again_in_s: float) -> str:
    """Return a job that waits for an open endpoint; only this job has failed there, for `since_s` seconds."""
    (job_id,) = waiting(engine)
    put(engine, State.open, since_s=since_s + 60.0, troubled_at=from_now(-since_s), alive_at=from_now(-since_s - 1.0))
    with engine.begin() as connection:
        values = {"suspect_job": job_id, "suspect_at": from_now(-1.0)}
        connection.execute(update(table).values(values))
        held = {"waiting_for": "endpoint_paused", "run_at": from_now(again_in_s), "error_code": "unauthorized"}
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(held))
    return job_id


def starts_in_s(engine: Engine, job_id: str) -> float:
    with engine.begin() as connection:
        return float(connection.execute(select(seconds_until(jobs.c.run_at)).where(jobs.c.id == job_id)).scalar_one())


@pytest.mark.parametrize(("since_s", "hold_s"), [(5.0, 10.0), (100.0, 105.0), (86400.0, 300.0)])
def test_a_job_held_alone_waits_longer_the_longer_the_trouble_lasts(
    engine: Engine, since_s: float, hold_s: float
) -> None:
    job_id = held_alone(engine, since_s=since_s, again_in_s=-1.0)

    (verdict,) = verdicts(engine, trouble(job_id, attempt=2))

    assert verdict.owner is FailureOwner.endpoint
    assert verdict.hold_s == pytest.approx(hold_s, abs=2.0)
    assert str(one(engine, "SELECT suspect_job FROM afterword_endpoints").suspect_job) == job_id


def test_waits_begin_again_where_a_release_before_changed_the_endpoint(engine: Engine) -> None:
    job_id = held_alone(engine, since_s=1000.0, again_in_s=-1.0)
    with engine.begin() as connection:
        connection.execute(update(table).values(since=from_now(-60.0), suspect_job=None, suspect_at=None))

    assert verdicts(engine, trouble(job_id))[0].hold_s == pytest.approx(5.0, abs=2.0)


def test_resume_lets_a_job_that_is_held_alone_start_at_once_and_its_waits_begin_again(engine: Engine) -> None:
    job_id = held_alone(engine, since_s=1000.0, again_in_s=250.0)

    with engine.begin() as connection:
        assert endpoints.resume(connection, "default")
        assert not endpoints.resume(connection, "default")

    assert starts_in_s(engine, job_id) <= 0.0
    assert verdicts(engine, trouble(job_id))[0].hold_s == pytest.approx(5.0, abs=2.0)


@pytest.mark.parametrize("cause", [None, Cause.trouble, Cause.breaker], ids=["held alone", "trouble", "breaker"])
def test_a_starting_worker_hurries_the_jobs_that_wait_for_its_endpoints(engine: Engine, cause: Cause | None) -> None:
    if cause is None:
        job_id = held_alone(engine, since_s=1000.0, again_in_s=250.0)
    else:
        paused(engine, cause, since_s=1000.0, probe_in_s=250.0)

    with engine.begin() as connection:
        endpoints.try_soon(connection, ["another"])
    waits_s = starts_in_s(engine, job_id) if cause is None else seen(engine).probe_in_s
    with engine.begin() as connection:
        endpoints.try_soon(connection, ["default", "another"])

    assert waits_s == pytest.approx(250.0, abs=5.0), "another endpoint's start leaves the wait unchanged"
    assert starts_in_s(engine, job_id) <= 0.0 if cause is None else seen(engine).is_overdue


def test_a_worker_that_starts_ends_no_pause_of_an_operator(engine: Engine) -> None:
    paused(engine, Cause.operator)
    with engine.begin() as connection:
        connection.execute(update(table).values(probe_at=None))
        endpoints.try_soon(connection, ["default"])

    assert (seen(engine).probe_in_s, seen(engine).is_overdue) == (None, False)


def test_an_answer_to_another_ends_the_long_wait_of_a_job_held_alone(engine: Engine) -> None:
    job_id = held_alone(engine, since_s=1000.0, again_in_s=250.0)
    assert not seen(engine).is_cleared
    answered(engine, 0.0)
    assert seen(engine).is_cleared

    with engine.begin() as connection:
        assert endpoints.clear_suspects(connection, ["default"]) == 1
        assert endpoints.clear_suspects(connection, ["default"]) == 0

    assert not seen(engine).is_cleared
    assert starts_in_s(engine, job_id) == pytest.approx(5.0, abs=2.0)


def pause_by_trouble(engine: Engine) -> None:
    assert judged(engine, trouble(B)) == [PAUSED]


def pause_by_breaker(engine: Engine) -> None:
    with engine.begin() as connection:
        assert endpoint_breaker.open_breaker(connection, [BreakerTrip("default", ErrorCode.server_error)]) == [True]


def pause_by_operator(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoints.pause(connection, "default")


@pytest.mark.parametrize("pause", [pause_by_trouble, pause_by_breaker, pause_by_operator])
def test_a_job_held_alone_is_due_with_the_others_once_the_endpoint_is_paused(
    engine: Engine, pause: Callable[[Engine], None]
) -> None:
    job_id = held_alone(engine, since_s=1000.0, again_in_s=250.0)

    pause(engine)

    assert starts_in_s(engine, job_id) < 6.0


@pytest.mark.parametrize("waits_for", ["limit", "retry", None])
def test_a_job_that_waits_for_something_else_is_not_hurried(engine: Engine, waits_for: str | None) -> None:
    job_id = held_alone(engine, since_s=1000.0, again_in_s=250.0)
    with engine.begin() as connection:
        connection.execute(update(jobs).values(waiting_for=waits_for))
        endpoints.try_soon(connection, ["default"])

    assert starts_in_s(engine, job_id) == pytest.approx(250.0, abs=5.0)


@pytest.mark.parametrize(("slow_s", "state"), [(5.0, State.slow), (11.0, State.open)])
def test_an_endpoint_is_slow_for_ten_seconds(engine: Engine, slow_s: float, state: State) -> None:
    put(engine, State.slow, since_s=slow_s)

    with engine.begin() as connection:
        endpoints.open_fully(connection, "default")

    assert seen(engine).state is state
    assert seen(engine).since_s == pytest.approx(slow_s, abs=5.0), "the time counts from the end of the pause"


def test_a_call_in_flight_through_the_pause_is_held_when_it_fails_late(engine: Engine) -> None:
    put(engine, State.slow, since_s=3.0)

    assert judged(engine, trouble(A, began_s=10.0), trouble(B, began_s=10.0)) == [HELD, HELD]
    assert seen(engine).state is State.slow


def test_a_first_answer_opens_no_row_but_an_open_one(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoints.note_answers(connection, {})
        assert endpoints.read_all(connection) == {}
        endpoints.note_answers(connection, {"default": AnswerTimes(2.0, 2.0)})

    row = one(engine, "SELECT state, suspect_job FROM afterword_endpoints")
    assert (row.state, row.suspect_job) == ("open", None)
