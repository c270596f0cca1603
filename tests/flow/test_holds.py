"""Jobs that wait for their endpoint, on real workers: the cost of each wait, its length and its end."""

from typing import Any

import pytest
from sqlalchemy import text

from tests.flow.outages import refuse_key
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.dev.fake.presets import QUOTA
from worker.dev.fake.script import Script
from worker.jobs.store import endpoints

# Exhausted quota, as gateways report it after they have sent the status line.
IN_ANSWER: dict[str, tuple[bool, dict[str, Any]]] = {
    "a body": (False, {"body": '{"error": {"message": "used up", "type": "insufficient_quota"}}'}),
    "an event": (True, {"error": QUOTA, "error_after": 0}),
    "an event after half an answer": (True, {"error": QUOTA, "error_after": 2}),
}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("others", [0, 200], ids=["alone", "while others are served"])
def test_exhausted_quota_inside_an_answer_is_bought_max_attempts_times(postgres_system: System, others: int) -> None:
    system = postgres_system
    for stream, script in IN_ANSWER.values():
        system.send(request("bought", stream=stream, fake=script), max_attempts=2, batch="bought")
    for _ in range(others):
        system.send(request(fake={"latency_s": 0.1}), priority=9)
    system.start(concurrency=4)

    jobs = until(lambda: ended(system, len(IN_ANSWER)), what=f"their end: {system.said()}", seconds=120)

    assert {(row.status, row.error_code, row.attempts, row.attempts_used) for row in jobs} == {
        ("failed", "provider_error", 2, 2)
    }
    counted = system.rows("SELECT count(*) AS n FROM usage_v1 WHERE batch = 'bought'")
    assert counted[0].n == 2 * len(IN_ANSWER), "each request has a usage row"
    whose = system.rows("SELECT DISTINCT trouble FROM afterword_attempts WHERE error_code = 'provider_error'")
    assert [row.trouble for row in whose] == ["endpoint"]


def ended(system: System, number: int) -> list[Any] | None:
    rows = system.rows("SELECT * FROM jobs_v1 WHERE batch = 'bought' AND finished_at IS NOT NULL")
    return rows if len(rows) == number else None


@pytest.mark.timeout(120)
def test_a_billed_answer_in_trouble_is_not_bought_again_where_the_settings_forbid_it(postgres_system: System) -> None:
    system = postgres_system
    system.start(endpoint_retry_ambiguous="false", endpoint_retry_partial="false")
    ids = [system.send(request(stream=stream, fake=script)) for stream, script in IN_ANSWER.values()]

    rows = system.await_all(ids)

    assert {(row.status, row.attempts) for row in rows.values()} == {("failed", 1)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_refusal_for_the_moment_spends_no_attempt(postgres_system: System, status: int) -> None:
    system = postgres_system
    system.start()
    refusal = {"status": status, "error": {"message": "no room"}}
    script = {"attempts": [refusal, refusal | {"retry_after": 0}, refusal, {}]}

    row = system.await_status(system.send(request(fake=script), max_attempts=1))

    assert (row.status, row.attempts, row.attempts_used, row.max_attempts) == ("completed", 4, 1, 1)
    assert system.lines("endpoint.paused") == []


@pytest.mark.timeout(120)
def test_a_request_that_is_always_refused_ends_by_itself(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    job_id = system.send(request(model="fake-429"), max_attempts=1)
    held = system.await_status(job_id, "queued")
    until(lambda: system.job(job_id).waiting_for == "limit", what="the first refusal")
    with system.engine.begin() as connection:
        eight = "UPDATE afterword_jobs SET refusals = 8, run_at = now() WHERE id = :id AND status = 'queued'"
        connection.execute(text(eight), {"id": job_id})

    row = system.await_status(job_id)

    assert held.max_attempts == 1
    # The ninth refusal in a row is the last free one.
    assert (row.status, row.error_code, row.attempts, row.attempts_used) == ("failed", "rate_limited", 3, 1)


@pytest.mark.timeout(120)
def test_a_reset_in_55_years_is_not_waited_for(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    script = {"attempts": [{"status": 429, "headers": {"retry-after": "1764288000"}}, {}]}

    row = system.await_status(system.send(request(fake=script)))

    assert (row.status, row.attempts) == ("completed", 2)


def lasts(system: System, seconds: float) -> None:
    """Pretend that the endpoint's trouble has lasted `seconds` and that the job is due."""
    with system.engine.begin() as connection:
        ago = f"interval '{seconds} seconds'"
        connection.execute(text(f"UPDATE afterword_endpoints SET since = since - {ago}, troubled_at = now() - {ago}"))
        connection.execute(text("UPDATE afterword_jobs SET run_at = now() WHERE status = 'queued'"))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("mended_by", ["resume", "a worker that starts"])
def test_a_wrong_key_with_one_job_is_tried_ever_more_seldom_until_it_is_mended(
    postgres_system: System, mended_by: str
) -> None:
    system = postgres_system
    refuse_key(system)
    system.start()
    job_id = system.send(max_attempts=2)
    until(lambda: wait_s(system, job_id, attempts=1) is not None, what="the first wait")
    assert 0 < float(wait_s(system, job_id, attempts=1) or 0) < 10

    lasts(system, 1000)
    waited_s = until(lambda: wait_s(system, job_id, attempts=2), what="the second wait")

    assert 280 < float(waited_s) <= 300
    row = system.job(job_id)
    assert (row.waiting_for, row.attempts_used, row.error_code) == ("endpoint_paused", 0, "unauthorized")
    assert system.lines("endpoint.paused") == [], "one job is not enough for a pause"

    system.fake.endpoint.outage = None
    if mended_by == "resume":
        with system.engine.begin() as connection:
            assert endpoints.resume(connection, "default")
    else:
        system.start()
    assert system.await_status(job_id).status == "completed"


def wait_s(system: System, job_id: str, *, attempts: int) -> float | None:
    """Return the remaining wait of a job with this number of attempts; None before that."""
    found = system.rows(
        "SELECT extract(epoch FROM run_at - now()) AS wait_s FROM afterword_jobs "
        "WHERE id = :id AND attempt = :attempts AND status = 'queued'",
        id=job_id,
        attempts=attempts,
    )
    return float(found[0].wait_s) if found else None


@pytest.mark.timeout(200)
def test_a_long_pause_is_probed_seldom_and_a_worker_that_starts_probes_at_once(postgres_system: System) -> None:
    system = postgres_system
    system.fake.endpoint.outage = Script(status=401)
    system.start()
    ids = [system.send() for _ in range(3)]
    until(lambda: system.lines("endpoint.paused"), what="the pause")
    with system.engine.begin() as connection:
        connection.execute(
            text("UPDATE afterword_endpoints SET since = since - interval '1000 seconds', probe_at = now()")
        )

    until(lambda: system.lines("endpoint.probed"), what="a probe")
    (row,) = system.rows("SELECT extract(epoch FROM probe_at - now()) AS in_s FROM afterword_endpoints")
    assert 250 < row.in_s <= 300
    waits = system.rows("SELECT DISTINCT waiting_until FROM jobs_v1 WHERE status = 'queued'")
    assert len(waits) == 1, "all jobs wait for the next probe"

    system.fake.endpoint.outage = None
    system.start()
    assert {row.status for row in system.await_all(ids).values()} == {"completed"}


@pytest.mark.timeout(120)
def test_an_endpoint_that_refuses_for_the_moment_opens_its_breaker_all_the_same(postgres_system: System) -> None:
    system = postgres_system
    system.fake.endpoint.outage = Script(status=503)
    for _ in range(30):
        system.send()
    system.start(concurrency=10)

    line = until(lambda: system.lines("endpoint.paused"), what=f"the breaker opens: {system.said()}", seconds=60)[0]

    assert (line["cause"], line["reason"]) == ("breaker", "overloaded")
    system.fake.endpoint.outage = None
    until(lambda: system.lines("endpoint.resumed"), what="a probe is answered", seconds=60)
    until(
        lambda: system.rows("SELECT count(*) AS n FROM afterword_jobs WHERE status = 'completed'")[0].n == 30,
        what="all are served",
    )
