"""The database's clock is set: leases of living workers go on, leases of dead workers end, no call is made twice."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, update

from tests.flow.leadership import leader, process_of
from tests.flow.parts import leased
from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import until
from tests.store.made import accept_all, entry, one, worker
from tests.store.settable import settable
from worker.dev.receiver import WebhookReceiver
from worker.jobs.dispatcher import Dispatcher
from worker.jobs.store import reclaim
from worker.jobs.store.claim import claim
from worker.queue.nudges import connect
from worker.store import leases
from worker.store.clock import from_now, now
from worker.store.heartbeat import Lease, LeaseTimes
from worker.store.tables import leaders, workers
from worker.store.transitions import ClaimRequest

# A lease of two seconds and a call that lasts longer.
QUICK = {**ALLOWED, "lease_s": "2", "beat_s": "0.2", "tick_s": "0.1", "concurrency": "20"}
LONG_S = 6.0
JOBS = 8
LEASE_S = 1.0

each_way = pytest.mark.parametrize("step_s", [600.0, -600.0], ids=["forward", "back"])
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def set_clock(engine: Engine) -> Callable[[float], None]:
    return settable(engine)


@pytest.fixture
def lease(engine: Engine, set_clock: Callable[[float], None]) -> Iterator[Lease]:
    """Yield the leader's lease, after heartbeats for the length of the lease."""
    made = leased(engine, LeaseTimes(LEASE_S, 0.05))
    made.start()
    until(lambda: made.unbroken_s() > LEASE_S, what="a lease without a gap")
    yield made
    made.stop()


def claimed(engine: Engine, worker_id: str) -> str:
    (accepted,) = accept_all(engine, entry())
    with engine.begin() as connection:
        assert all(claim(connection, [ClaimRequest(str(accepted.job_id), worker_id)]))
    return str(accepted.job_id)


def status(engine: Engine, job_id: str) -> str:
    return str(one(engine, "SELECT status FROM jobs_v1 WHERE id = :id", id=job_id).status)


def dispatcher(engine: Engine, redis: Redis, lease: Lease, **options: Any) -> Dispatcher:
    return Dispatcher(engine, redis, lease, tick_s=0.05, lease_s=LEASE_S, **options)


@each_way
def test_a_leader_that_meets_the_new_time_first_takes_nothing_back(
    engine: Engine, redis: Redis, lease: Lease, set_clock: Callable[[float], None], step_s: float
) -> None:
    living = worker(engine, lease_s=LEASE_S)
    job_id = claimed(engine, living)
    made = dispatcher(engine, redis, lease)
    set_clock(step_s)

    # No heartbeat has run yet: the take-back is the first query after the clock step.
    assert made._take_back() == 0

    assert status(engine, job_id) == "in_progress"


@each_way
def test_a_step_restarts_the_evidence_of_a_lease(
    lease: Lease, set_clock: Callable[[float], None], step_s: float
) -> None:
    before = lease._unbroken_since

    set_clock(step_s)

    until(lambda: lease._unbroken_since != before, what="the next heartbeat")


@each_way
def test_a_worker_that_died_before_the_step_is_taken_back_one_lease_after_it(
    engine: Engine, redis: Redis, lease: Lease, set_clock: Callable[[float], None], step_s: float
) -> None:
    dead = worker(engine, lease_s=LEASE_S)
    job_id = claimed(engine, dead)
    made = dispatcher(engine, redis, lease)

    set_clock(step_s)
    made.start()

    until(lambda: status(engine, job_id) == "queued", what="the take-back")
    made.stop()


@pytest.mark.parametrize("left_s", [-1.0, 600.0], ids=["over", "from another time"])
def test_an_impossible_leadership_is_free(engine: Engine, left_s: float) -> None:
    mine, other = worker(engine), worker(engine)
    with engine.begin() as connection:
        assert leases.lead(connection, other, name="dispatch", lease_s=5.0)
        assert not leases.lead(connection, mine, name="dispatch", lease_s=5.0)
        connection.execute(update(leaders).values(lease_until=from_now(left_s)))

        assert leases.lead(connection, mine, name="dispatch", lease_s=5.0)


def test_a_row_without_the_length_of_its_lease_ends_by_its_instant(engine: Engine) -> None:
    # As a worker of the release before writes the row.
    old = worker(engine)
    job_id = claimed(engine, old)
    with engine.begin() as connection:
        connection.execute(update(workers).values(lease_s=None, lease_until=from_now(1800.0)))
        assert reclaim.take_back(connection).workers == 0
        connection.execute(update(workers).values(lease_until=now()))
        assert reclaim.take_back(connection).queued == {job_id}


@each_way
def test_no_call_and_no_delivery_is_made_twice_because_the_clock_was_set(
    postgres_system: System, step_s: float
) -> None:
    system = postgres_system
    set_clock = settable(system.engine)
    with WebhookReceiver() as receiver:
        register(system.engine, receiver.url)
        for _ in range(2):
            system.start(**QUICK)
        sent = [system.send(request(fake={"latency_s": LONG_S})) for _ in range(JOBS)]
        until(lambda: system.fake.stats()["requests"] == JOBS, what="all requests")
        for number in range(1, 4):
            set_clock(number * step_s)
            until(lambda n=number: len(system.lines("clock.stepped")) >= 2 * n, what="both workers notice the step")

        rows = system.await_all(sent)
        assert {(row.status, row.attempts) for row in rows.values()} == {("completed", 1)}
        assert system.fake.stats()["requests"] == JOBS
        until(lambda: len(receiver.received) >= JOBS, what="deliveries")
        assert not system.lines("lease.taken_back") + system.lines("lease.lost") + system.lines("delivery.taken_back")


@each_way
def test_a_leader_that_dies_as_the_clock_is_set_is_followed(postgres_system: System, step_s: float) -> None:
    system = postgres_system
    set_clock = settable(system.engine)
    for _ in range(2):
        system.start(**QUICK)
    sent = [system.send(request(fake={"attempts": [{"latency_s": 600}, {}]})) for _ in range(JOBS)]
    until(lambda: system.fake.stats()["requests"] == JOBS, what="all requests")
    first = leader(system)
    set_clock(step_s)
    process_of(system, first).signal(signal.SIGKILL)

    until(lambda: leader(system) != first, what="another leader")
    until(lambda: system.lines("lease.taken_back"), what="the take-back")
    mine = {str(row.job_id) for row in system.rows("SELECT job_id FROM attempts_v1 WHERE worker = :id", id=first)}
    assert mine <= set(sent)
