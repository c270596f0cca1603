"""Tenants share by calls in progress, nudges in the window and tokens of finished jobs."""

from collections import Counter

from sqlalchemy import Engine, select, update

from tests.jobs.store.attempts import completed
from tests.store.made import accept_all, entry, job, worker
from worker.jobs.fair_share import FairShare, Waiting
from worker.jobs.store import due, tenant_usage
from worker.jobs.store.claim import claim
from worker.jobs.store.record import record
from worker.jobs.store.tenant_usage import CallsInProgress, FinishedJobs
from worker.store.tables import attempts, jobs
from worker.store.transitions import ClaimRequest


def start(engine: Engine, worker_id: str, count: int, *, tenant: str = "a") -> list[str]:
    ids = [str(each.job_id) for each in accept_all(engine, *(entry(job(tenant=tenant)) for _ in range(count)))]
    with engine.begin() as connection:
        assert all(claim(connection, [ClaimRequest(job_id, worker_id) for job_id in ids]))
    return ids


def finish(engine: Engine, count: int, *, tokens: int | None, tenant: str = "a") -> None:
    """Complete jobs of a tenant, each with `tokens` tokens."""
    mine = worker(engine)
    ids = [str(each.job_id) for each in accept_all(engine, *(entry(job(tenant=tenant)) for _ in range(count)))]
    with engine.begin() as connection:
        claims = claim(connection, [ClaimRequest(job_id, mine) for job_id in ids])
        record(connection, [completed(each) for each in claims if each])
        given = {"total_tokens": tokens, "prompt_tokens": None, "completion_tokens": None}
        connection.execute(update(attempts).where(attempts.c.job_id.in_(ids)).values(given))


def test_calls_are_counted_for_each_worker_endpoint_and_tenant(engine: Engine) -> None:
    busy, idle = worker(engine), worker(engine)
    start(engine, busy, 2)
    start(engine, busy, 1, tenant="b")
    with engine.begin() as connection:
        found = tenant_usage.in_progress(connection)
    slots = found[0].slots

    assert set(found) == {
        CallsInProgress(busy, slots, "default", "a", 2),
        CallsInProgress(busy, slots, "default", "b", 1),
        CallsInProgress(idle, slots, None, None, 0),
    }


def test_the_tokens_of_finished_jobs_are_read_once(engine: Engine) -> None:
    finish(engine, 1, tokens=7)
    with engine.begin() as connection:
        assert tenant_usage.finished_jobs(connection, after=None) == ([], 1)
    finish(engine, 2, tokens=100)
    finish(engine, 3, tokens=None, tenant="b")

    with engine.begin() as connection:
        found, cursor = tenant_usage.finished_jobs(connection, after=1)
        again = tenant_usage.finished_jobs(connection, after=cursor)

    assert sorted(found) == [FinishedJobs("default", "a", 2, 200, 0), FinishedJobs("default", "b", 3, 0, 3)]
    assert again == ([], 6)


def test_a_job_that_made_no_request_does_not_count(engine: Engine) -> None:
    accept_all(engine, entry(job(deadline="2020-01-01T00:00:00Z")))
    with engine.begin() as connection:
        due.expire(connection)
        assert tenant_usage.finished_jobs(connection, after=0) == ([], 1)


def pushes(engine: Engine, fair: FairShare, count: int, window: dict[bytes, int] | None = None) -> dict[bytes, str]:
    """Return the next nudges, each with its tenant."""
    with engine.begin() as connection:
        fair.learn(connection)
        lanes, _ = due.lanes(connection)
        calls, urgent = tenant_usage.in_progress(connection), due.urgent(connection)
    entries = fair.missing(Waiting(lanes, urgent, calls), window or {}, count)
    with engine.begin() as connection:
        tenants = dict(connection.execute(select(jobs.c.id, jobs.c.tenant)).all())
    return {entry: tenants[entry.decode().partition(".")[0]] for _, entry in entries}


def next_turns(engine: Engine, fair: FairShare, count: int, window: dict[bytes, int] | None = None) -> Counter[str]:
    return Counter(pushes(engine, fair, count, window).values())


def test_the_tenant_with_fewer_tokens_has_more_turns(engine: Engine) -> None:
    fair = FairShare(engine, leads=lambda: True)
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "ab" for _ in range(40)))
    assert next_turns(engine, fair, 10) == {"a": 5, "b": 5}
    finish(engine, 5, tokens=200, tenant="a")
    finish(engine, 5, tokens=2000, tenant="b")

    # 1,000 + 45 * 200 = 10,000
    assert next_turns(engine, fair, 45) == {"a": 40, "b": 5}


def test_calls_in_progress_take_turns_from_their_tenant(engine: Engine) -> None:
    fair = FairShare(engine, leads=lambda: True)
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "ab" for _ in range(20)))
    next_turns(engine, fair, 2)
    start(engine, worker(engine), 6)

    assert next_turns(engine, fair, 10) == {"a": 2, "b": 8}


def test_nudges_in_the_window_take_turns_from_their_tenant(engine: Engine) -> None:
    fair = FairShare(engine, leads=lambda: True)
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "ab" for _ in range(20)))
    window = {entry: 5 for entry, tenant in pushes(engine, fair, 12).items() if tenant == "a"}

    assert next_turns(engine, fair, 10, window) == {"a": 2, "b": 8}


def test_a_stranger_that_comes_later_has_the_first_turn(engine: Engine) -> None:
    fair = FairShare(engine, leads=lambda: True)
    accept_all(engine, *(entry(job(tenant="a")) for _ in range(40)))
    next_turns(engine, fair, 10)
    finish(engine, 30, tokens=500)
    accept_all(engine, entry(job(tenant="b")))

    assert next_turns(engine, fair, 2) == {"a": 1, "b": 1}


def test_a_leader_that_returns_forgets_what_it_knew(engine: Engine) -> None:
    fair = FairShare(engine, leads=lambda: True)
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "ab" for _ in range(40)))
    next_turns(engine, fair, 10)
    # While another worker leads, `a` alone has jobs at first; it owes nothing for them.
    finish(engine, 5, tokens=100_000, tenant="a")

    fair.begin()

    assert next_turns(engine, fair, 10) == {"a": 5, "b": 5}
