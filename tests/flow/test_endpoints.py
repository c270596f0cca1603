"""An endpoint that refuses every job and then recovers: real workers, 10,000 queued jobs, outages on command."""

import time
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.flow.outages import Switch, close_port, exhaust_quota, fail, mend, refuse_key
from tests.flow.system import System, request
from tests.pool.workers import until
from tests.store.made import accept_all, entry, job
from worker.dev.fake.script import Script

QUEUED = 10_000
SLOTS = 20
PROBE_S = 5.0
# From the first answered probe to the full rate.
FULL_S = 30.0


def fill(system: System, number: int = QUEUED, **script: object) -> None:
    """Queue jobs that take a fifth of a second each."""
    body = request(fake={"latency_s": 0.2, **script})
    for _ in range(number // 500):
        accept_all(system.engine, *(entry(job(request=body)) for _ in range(500)))


def state(system: System) -> str:
    found = system.rows("SELECT state FROM afterword_endpoints WHERE name = 'default'")
    return str(found[0].state) if found else "open"


def count(system: System, condition: str) -> int:
    return int(system.rows(f"SELECT count(*) AS n FROM afterword_jobs WHERE {condition}")[0].n)


def attempts_by_job(system: System) -> Counter[str]:
    rows = system.rows("SELECT job_id, count(*) AS n FROM afterword_attempts WHERE outcome = 'failed' GROUP BY job_id")
    return Counter({str(row.job_id): row.n for row in rows})


def sit_out(seconds: float) -> None:
    """Let an outage last for `seconds`."""
    began = time.monotonic()
    until(lambda: time.monotonic() - began > seconds, what="the outage's end", seconds=seconds + 5)


def await_return(system: System) -> None:
    until(lambda: system.lines("endpoint.resumed"), what=f"the endpoint resumes: {system.said()}")


def held_through(system: System, outages: Sequence[tuple[Switch, str]], *, outage_s: float) -> None:
    fill(system)
    system.start(concurrency=SLOTS)
    until(lambda: count(system, "status = 'completed'") > SLOTS, what="the endpoint serves")
    for number, (begin, code) in enumerate(outages, start=1):
        tried_before, probed_before = attempts_by_job(system), len(system.lines("endpoint.probed"))
        begin(system)
        until(lambda: state(system) == "paused", what=f"the pause: {system.said()}")
        began = time.monotonic()
        sit_out(outage_s)

        waiting = system.rows("SELECT DISTINCT waiting_for FROM jobs_v1 WHERE status = 'queued'")
        assert {row.waiting_for for row in waiting} == {"endpoint_paused"}
        probed = len(system.lines("endpoint.probed")) - probed_before
        # The first probe comes at once, or with the next tick.
        assert 0 < probed <= 1 + (time.monotonic() - began) / PROBE_S
        mend(system)
        until(lambda: len(system.lines("endpoint.resumed")) == number, what=f"it resumes: {system.said()}")  # noqa: B023
        tried = attempts_by_job(system) - tried_before
        # Two failures cause the pause; by then other jobs may fill all slots.
        assert len(tried) <= 2 * SLOTS + probed + 2
        assert set((tried + tried_before).values()) == {1}, "each probe must be another job"
        assert {line["error_code"] for line in system.lines("attempt.failed")[-len(tried) :]} == {code}
        assert len(system.lines("endpoint.paused")) == number

        until(lambda: count(system, "status = 'in_progress'") == SLOTS, what="every slot is busy again", seconds=FULL_S)
        until(lambda: state(system) == "open", what="it opens fully", seconds=FULL_S)
    assert count(system, "status = 'failed'") == 0
    assert count(system, "attempts_used > 1 OR (status = 'queued' AND attempts_used > 0)") == 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "outage_s", [pytest.param(8.0, id="8 s"), pytest.param(60.0, id="60 s", marks=pytest.mark.long)]
)
def test_ten_thousand_jobs_wait_for_their_endpoint_and_none_pays_for_it(
    postgres_system: System, outage_s: float
) -> None:
    outages = [(refuse_key, "unauthorized"), (close_port, "connect_failed"), (exhaust_quota, "quota_exhausted")]
    held_through(postgres_system, outages, outage_s=outage_s)


@pytest.mark.timeout(400)
def test_they_wait_on_sqlite_as_well(sqlite_system: System) -> None:
    held_through(sqlite_system, [(refuse_key, "unauthorized")], outage_s=8.0)


@pytest.mark.timeout(400)
def test_held_jobs_start_at_once_after_the_probe_that_was_answered(postgres_system: System) -> None:
    system = postgres_system
    refuse_key(system)
    fill(system, 1000)
    system.start(concurrency=SLOTS)
    until(lambda: state(system) == "paused", what="the pause")
    mend(system)

    await_return(system)

    until(lambda: count(system, "status = 'completed'") > 100, what="held jobs are served")
    (first,) = system.rows(
        "SELECT extract(epoch FROM min(a.sent_at) - e.since) AS after_s "
        "FROM afterword_attempts a, afterword_endpoints e WHERE a.sent_at > e.since GROUP BY e.since"
    )
    assert first.after_s < 5.0


@pytest.mark.timeout(400)
def test_the_breaker_opens_on_server_errors_and_probes_close_it(postgres_system: System) -> None:
    system = postgres_system
    fail(system)
    fill(system, 1000)
    system.start(concurrency=SLOTS)

    until(lambda: state(system) == "paused", what=f"the breaker opens: {system.said()}")
    (line,) = until(lambda: system.lines("endpoint.paused"), what="the line")
    assert (line["cause"], line["reason"]) == ("breaker", "server_error")
    until(lambda: system.lines("endpoint.probed"), what="a probe")
    mend(system)
    await_return(system)

    until(lambda: count(system, "status = 'completed'") == 1000, what="all are served", seconds=120)
    probed = [line["job_id"] for line in system.lines("endpoint.probed") if line["answer"] == "sick"]
    assert len(set(probed)) == len(probed)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_hanging_endpoint_is_paused_even_if_few_slots_wait_for_it(postgres_system: System, workers: int) -> None:
    system = postgres_system
    system.fake.endpoint.outage = Script(latency_s=600)
    fill(system, 500)
    for _ in range(workers):
        system.start(concurrency=4 // workers, endpoint_first_byte_s=1.5)

    until(lambda: state(system) == "paused", what=f"the pause: {system.said()}")

    (line,) = until(lambda: system.lines("endpoint.paused"), what="the line")
    assert (line["cause"], line["reason"]) == ("breaker", "first_byte_timeout")
    # The rule for half of the calls in 30 s needs twenty calls of one worker.
    assert 10 <= len(system.rows("SELECT 1 FROM afterword_attempts")) < 20
    mend(system)
    await_return(system)
    until(lambda: count(system, "status = 'completed'") > 20, what="the others are served")


@pytest.mark.timeout(200)
def test_a_few_slow_jobs_delay_no_other_jobs(postgres_system: System) -> None:
    system = postgres_system
    fill(system, 500)
    slow = [entry(job(request=request(fake={"latency_s": 600}), priority=0, max_attempts=2)) for _ in range(12)]
    accept_all(system.engine, *slow)
    system.start(concurrency=SLOTS, endpoint_first_byte_s=5)

    ended = system.await_all([one.job.id for one in slow])

    assert {row.error_code for row in ended.values()} == {"first_byte_timeout"}
    assert (system.lines("endpoint.paused"), state(system)) == ([], "open")


@pytest.mark.timeout(200)
def test_a_job_that_alone_is_refused_fails_and_others_run(postgres_system: System) -> None:
    system = postgres_system
    system.start(concurrency=SLOTS)
    fill(system, 5000)
    until(lambda: count(system, "status = 'completed'") > 0, what="others are served")

    poison = system.send(request(model="fake-401"), max_attempts=2, priority=0)

    row = system.await_status(poison)
    assert (row.status, row.error_code) == ("failed", "unauthorized")
    assert system.lines("endpoint.paused") == []
    assert count(system, "status IN ('failed', 'expired')") == 1


@pytest.mark.timeout(300)
def test_jobs_that_always_fail_their_probe_do_not_hold_the_others(postgres_system: System) -> None:
    system = postgres_system
    refuse_key(system)
    bad = entry(job(request=request(model="fake-401"), priority=0, max_attempts=1))
    worse = entry(job(request=request(model="fake-401"), priority=0, max_attempts=1, tenant="another"))
    accept_all(system.engine, bad, worse)
    fill(system, 500, latency_s=0.02)
    system.start(concurrency=2)
    until(lambda: state(system) == "paused", what="the pause")
    mend(system)

    until(lambda: count(system, "status = 'completed'") == 500, what="the others are served", seconds=200)
    ended = system.await_all([bad.job.id, worse.job.id], seconds=120)

    assert {row.error_code for row in ended.values()} == {"unauthorized"}
