"""Each worker process knows the state of its endpoints; on a real database, with its own writer."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis
from sqlalchemy import Engine, insert

from tests.flow.parts import conf, fill
from tests.pool.workers import until
from tests.store.made import accept_all, claim_one, entry, one, rows, worker
from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode, failure
from worker.jobs.core.endpoint_health import Cause, FailureOwner, State
from worker.jobs.core.retry import FAILED
from worker.jobs.endpoint_monitor import EndpointMonitor
from worker.jobs.intake import Intake
from worker.jobs.net.progress import Reply
from worker.jobs.outcome import build_record
from worker.jobs.store.claim import Claim
from worker.queue.nudges import read_window
from worker.store.clock import from_now
from worker.store.group_commit import Batcher
from worker.store.tables import endpoints

ENDPOINT = Endpoint("default", "http://127.0.0.1:9/v1/chat/completions")


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    made = Batcher(engine, max_items=100)
    made.start()
    yield made
    made.close(timeout_s=10.0)


@pytest.fixture
def health(engine: Engine, batcher: Batcher) -> EndpointMonitor:
    return EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None)


def claimed(engine: Engine) -> Claim:
    (accepted,) = accept_all(engine, entry())
    found = claim_one(engine, worker(engine), str(accepted.job_id))
    assert found is not None
    return found


def reply(code: ErrorCode | None, *, elapsed_s: float = 0.01) -> Reply:
    found = None if code is None else failure(code)
    return Reply(found, None, True, None, None, None, None, elapsed_s, b"", "identity", {})


def blame(health: EndpointMonitor, got: Claim, came: Reply) -> FailureOwner:
    return asyncio.run(health.classify(got, ENDPOINT, came)).owner


def state(engine: Engine) -> str:
    return str(one(engine, "SELECT state FROM afterword_endpoints").state)


def put(engine: Engine, state: State, *, since_s: float, cause: Cause | None = None) -> None:
    with engine.begin() as connection:
        row = {"name": "default", "state": state, "cause": cause, "since": from_now(-since_s)}
        connection.execute(insert(endpoints).values(row))


def test_two_jobs_in_trouble_are_known_to_all_workers(
    engine: Engine, batcher: Batcher, health: EndpointMonitor
) -> None:
    other = EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None)

    blamed = [blame(health, claimed(engine), reply(ErrorCode.unauthorized)) for _ in range(2)]

    assert blamed == [FailureOwner.endpoint] * 2
    assert other.is_open("default")
    other.exchange()
    assert not other.is_open("default")


def test_an_answer_is_shared_with_the_start_of_its_call(engine: Engine, batcher: Batcher) -> None:
    one_of_us, other = (EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None) for _ in range(2))
    blame(one_of_us, claimed(engine), reply(None, elapsed_s=100.0))
    one_of_us.exchange()

    assert blame(other, claimed(engine), reply(ErrorCode.unauthorized, elapsed_s=50.0)) is FailureOwner.endpoint
    blame(one_of_us, claimed(engine), reply(None, elapsed_s=20.0))
    one_of_us.exchange()
    assert blame(other, claimed(engine), reply(ErrorCode.unauthorized, elapsed_s=40.0)) is FailureOwner.job


def test_a_probe_refused_for_its_own_fault_resumes_the_endpoint(engine: Engine, health: EndpointMonitor) -> None:
    got = claimed(engine)._replace(probe=True)
    put(engine, State.paused, since_s=60.0, cause=Cause.trouble)

    assert blame(health, got, reply(ErrorCode.bad_request)) is FailureOwner.job
    assert state(engine) == "slow"


@pytest.mark.parametrize(("barred", "blamed"), [(False, FailureOwner.endpoint), (True, FailureOwner.job)])
def test_a_sick_probe_is_held_unless_it_must_not_be_repeated(
    engine: Engine, health: EndpointMonitor, barred: bool, blamed: FailureOwner
) -> None:
    got, came = claimed(engine)._replace(probe=True), reply(ErrorCode.connection_lost)
    put(engine, State.paused, since_s=60.0, cause=Cause.breaker)
    assert came.failure is not None
    came = replace(came, failure=replace(came.failure, retryable=not barred))

    assert blame(health, got, came) is blamed
    assert state(engine) == "paused"


@pytest.mark.parametrize(("elapsed_s", "opened"), [(0.01, True), (30.0, False)], ids=["new calls", "calls from before"])
def test_calls_in_flight_through_a_pause_open_no_breaker(
    engine: Engine, health: EndpointMonitor, elapsed_s: float, opened: bool
) -> None:
    put(engine, State.slow, since_s=10.0)
    health.exchange()
    got = claimed(engine)

    for number in range(20):
        job = got._replace(job_id=f"00000000-0000-4000-8000-{number:012}")
        assert blame(health, job, reply(ErrorCode.server_error, elapsed_s=elapsed_s)) is FailureOwner.job

    assert state(engine) == ("paused" if opened else "slow")


def slow_jobs(engine: Engine, number: int) -> list[Claim]:
    got = claimed(engine)
    return [got._replace(job_id=f"00000000-0000-4000-8000-{each:012}") for each in range(number)]


def test_a_fleet_of_few_slots_counts_its_timeouts_together(engine: Engine, batcher: Batcher) -> None:
    fleet = [EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None) for _ in range(5)]

    for number, job in enumerate(slow_jobs(engine, 10)):
        assert not number or state(engine) == "open"
        blame(fleet[number % 5], job, reply(ErrorCode.first_byte_timeout, elapsed_s=600.0))

    assert state(engine) == "paused"


@pytest.mark.parametrize("answers", ["to the same worker", "to another"])
def test_slow_jobs_among_answers_cause_no_pause(engine: Engine, batcher: Batcher, answers: str) -> None:
    ours, other = (EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None) for _ in range(2))
    served, good = ours if answers == "to the same worker" else other, claimed(engine)

    for number, job in enumerate(slow_jobs(engine, 18)):
        blame(ours, job, reply(ErrorCode.first_byte_timeout, elapsed_s=600.0))
        if number % 5 == 0:
            # Several answers: with a single answer, half of the calls in 30 s would have failed.
            for _ in range(6):
                blame(served, good, reply(None, elapsed_s=0.1))
            served.exchange()

    assert state(engine) == "open"


def test_a_long_error_of_an_endpoint_is_cut_in_the_jobs_row(engine: Engine) -> None:
    huge = replace(failure(ErrorCode.provider_error), provider={"message": "x" * 2_000_000})
    came = replace(reply(None), failure=huge, request_id="y" * 60_000)

    attempt_record = build_record(claimed(engine), came, FAILED, usage_requested=False)

    assert attempt_record.error is not None
    assert 200_000 < len(attempt_record.error) < 300_000
    assert json.loads(attempt_record.error)["provider"].startswith('{"message":"xxx')
    assert len(str(attempt_record.attempt["request_id"])) == 512


def test_an_answer_to_another_worker_clears_the_suspicion(
    engine: Engine, batcher: Batcher, health: EndpointMonitor
) -> None:
    other = EndpointMonitor(engine, batcher, ["default"], wake=lambda delay_s: None)
    assert blame(health, claimed(engine), reply(ErrorCode.unauthorized, elapsed_s=5.0)) is FailureOwner.endpoint
    blame(other, claimed(engine), reply(None, elapsed_s=3.0))
    other.exchange()

    assert blame(health, claimed(engine), reply(ErrorCode.unauthorized, elapsed_s=1.0)) is FailureOwner.endpoint
    assert state(engine) == "open"


@pytest.mark.parametrize(("is_open", "nudges"), [(True, 3), (False, 0)])
def test_accepting_leaves_the_jobs_of_a_paused_endpoint_to_the_dispatcher(
    engine: Engine, database_url: str, redis_url: str, is_open: bool, nudges: int
) -> None:
    fill(redis_url, 3)
    redis = Redis.from_url(redis_url)
    settings = conf(database_url, redis_url)
    intake = Intake(
        engine, redis, settings, worker_id=lambda: "w", free_slots=lambda: 10, is_open=lambda endpoint: is_open
    )
    intake.start()
    try:
        until(lambda: len(rows(engine, "SELECT 1 FROM jobs_v1")) == 3, what="three rows")
    finally:
        intake.stop()
    assert len(read_window(redis, "chat.run")) == nudges
    redis.close()
