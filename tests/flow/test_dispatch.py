"""The dispatcher on a real Redis and a real database: one part's failure stops no other, and lanes get fair shares."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, event, insert, text, update

from tests.flow.parts import SLOTS, conf, fill, leased
from tests.pool.workers import until
from tests.store.made import accept_all, entry, job, one, rows, worker
from worker.jobs import dispatcher
from worker.jobs.core.endpoint_health import Cause, State
from worker.jobs.dispatcher import Dispatcher
from worker.jobs.fair_share import FairShare
from worker.jobs.intake import REST_S, Intake
from worker.jobs.store import due
from worker.jobs.store.claim import claim
from worker.jobs.store.endpoints import read_all
from worker.jobs.tick_timer import REFILL_S, SHORTEST_S
from worker.queue.nudges import POP, connect, nudge, read_window
from worker.store import leases
from worker.store.clock import from_now, now
from worker.store.engine import open_engine
from worker.store.heartbeat import Lease, LeaseTimes
from worker.store.tables import endpoints, jobs, leaders, workers
from worker.store.transitions import ClaimRequest

AWAY = "redis://127.0.0.1:1/0"
Make = Callable[..., Dispatcher]


@pytest.fixture
def make(engine: Engine, redis_url: str) -> Iterator[Make]:
    """Yield a function that starts a dispatcher; its lease is always old enough to end other leases."""
    made: list[tuple[Dispatcher, Lease, Any]] = []

    def start(url: str = redis_url, **options: Any) -> Dispatcher:
        lease, redis = leased(engine), connect(url)
        lease.slots = 2 * SLOTS
        lease.start()
        started = Dispatcher(engine, redis, lease, **{"tick_s": 0.05, "lease_s": 0.0, **options})
        made.append((started, lease, redis))
        started.start()
        return started

    yield start
    for started, lease, redis in made:
        started.stop()
        lease.stop()
        redis.close()


def orphaned(engine: Engine, count: int = 1) -> None:
    """Make jobs held by a worker whose lease has ended."""
    dead = worker(engine)
    accepted = accept_all(engine, *(entry() for _ in range(count)))
    with engine.begin() as connection:
        assert all(claim(connection, [ClaimRequest(str(each.job_id), dead) for each in accepted]))
        connection.execute(update(workers).where(workers.c.id == dead).values(lease_until=now()))


def status(engine: Engine, job_id: str) -> str:
    return str(one(engine, "SELECT status FROM jobs_v1 WHERE id = :id", id=job_id).status)


def standing(redis_url: str) -> list[str]:
    """Return the job ids of the nudges in Redis."""
    redis = connect(redis_url)
    found = [entry.decode().partition(".")[0] for entry in read_window(redis, "chat.run")]
    redis.close()
    return found


def test_a_redis_that_is_away_stops_neither_expiry_nor_take_back(engine: Engine, make: Make) -> None:
    over = entry(job(deadline="2020-01-01T00:00:00Z"))
    accept_all(engine, over)
    orphaned(engine)

    make(AWAY)

    until(lambda: status(engine, over.job.id) == "expired", what="the expiry")
    until(lambda: not rows(engine, "SELECT 1 FROM jobs_v1 WHERE status = 'in_progress'"), what="the take-back")


def test_a_failing_chore_stops_nothing_else(engine: Engine, redis_url: str, make: Make) -> None:
    ran = threading.Event()

    def fail() -> None:
        raise ValueError("a foreign entry")

    waiting = entry()
    accept_all(engine, waiting)

    make(leader_tasks=(fail, ran.set), local_tasks=(fail,))

    until(lambda: standing(redis_url) == [waiting.job.id], what="the nudge")
    assert ran.wait(10)


def test_all_jobs_of_a_dead_worker_are_taken_back_in_one_tick(engine: Engine, make: Make) -> None:
    orphaned(engine, 2 * dispatcher.TAKE_BACK_BATCH + 1)

    make(tick_s=60.0)

    until(lambda: not rows(engine, "SELECT 1 FROM jobs_v1 WHERE status = 'in_progress'"), what="the take-back")


def test_every_lane_has_its_share_of_the_window(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry(job(tenant="deep")) for _ in range(50)))
    late = [entry(job(tenant=tenant)) for tenant in ("a", "b", "c") for _ in range(2)]
    accept_all(engine, *late)

    make()

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert len({entry.job.id for entry in late} & set(standing(redis_url))) >= 3


def test_room_left_by_shallow_lanes_goes_to_the_deep_one(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry(job(tenant="deep")) for _ in range(50)))
    few = [entry(job(tenant=f"t{number}", priority=0)) for number in range(3)]
    accept_all(engine, *few)

    make()

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert {entry.job.id for entry in few} <= set(standing(redis_url))


def test_more_lanes_than_a_tick_visits_are_visited_in_turn(
    engine: Engine, redis_url: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher.due, "RANGES_A_TICK", 2)
    made = [entry(job(tenant=f"t{number}")) for number in range(7)]
    accept_all(engine, *made)

    make()

    until(lambda: set(standing(redis_url)) == {entry.job.id for entry in made}, what="every lane's nudge")


def test_a_job_that_becomes_due_is_found_by_its_start_and_not_by_the_tick(
    engine: Engine, redis_url: str, make: Make
) -> None:
    waiting = entry()
    accept_all(engine, waiting)
    with engine.begin() as connection:
        connection.execute(update(jobs).values(run_at=from_now(1.0)))

    make(tick_s=600.0)

    until(lambda: standing(redis_url) == [waiting.job.id], what="the nudge")


def put(engine: Engine, state: State, *, since_s: float = 60.0, name: str = "default", **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(endpoints).values(name=name, state=state, since=from_now(-since_s), **values),
        )


def elsewhere(engine: Engine, number: int) -> set[str]:
    """Return the ids of new jobs of another endpoint."""
    made = [str(each.job_id) for each in accept_all(engine, *(entry() for _ in range(number)))]
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id.in_(made)).values(endpoint="another"))
    return set(made)


def test_one_probe_of_a_paused_endpoint_is_nudged_before_all_others(engine: Engine, redis_url: str, make: Make) -> None:
    others, (held, _) = elsewhere(engine, 50), accept_all(engine, entry(), entry())
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == held.job_id).values(run_at=from_now(-60.0)))
    put(engine, State.paused, cause=Cause.trouble, probe_at=from_now(-1.0))

    make(tick_s=600.0)

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert set(standing(redis_url)) - others == {held.job_id}
    redis = connect(redis_url)
    assert redis.eval(POP, 1, "chat.run", 1000, 1000, 1, 1000)[1].decode().startswith(str(held.job_id))
    redis.close()


def test_a_probe_that_waits_for_a_slot_is_followed_by_no_other(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, entry(), entry(), entry())
    put(engine, State.paused, cause=Cause.breaker, probe_at=from_now(-1.0))
    make()
    until(lambda: len(standing(redis_url)) == 1, what="the probe")

    def overdue() -> None:
        with engine.begin() as connection:
            connection.execute(update(endpoints).values(probe_at=from_now(-1.0)))

    def is_postponed() -> bool:
        with engine.begin() as connection:
            return not read_all(connection)["default"].is_overdue

    (first,) = standing(redis_url)
    for _ in range(3):
        overdue()
        until(is_postponed, what="the dispatcher's next look")
    assert standing(redis_url) == [first]


def test_a_lost_probe_is_followed_by_another_job(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, entry(), entry())
    put(engine, State.paused, cause=Cause.trouble, probe_at=from_now(-1.0))
    make()
    (first,) = until(lambda: standing(redis_url), what="the probe")

    with connect(redis_url) as redis:
        redis.flushdb()
    with engine.begin() as connection:
        connection.execute(update(endpoints).values(probe_at=from_now(-1.0)))

    (second,) = until(lambda: standing(redis_url), what="another probe")
    assert second != first


def test_an_endpoint_that_is_back_starts_eight_jobs_in_its_first_second(
    engine: Engine, redis_url: str, make: Make
) -> None:
    accept_all(engine, *(entry() for _ in range(50)))
    put(engine, State.slow, since_s=-600.0)  # its first second never ends

    ticks: list[None] = []
    make(local_tasks=(lambda: ticks.append(None),))
    until(lambda: len(standing(redis_url)) == 8, what="eight nudges")
    seen = len(ticks)
    until(lambda: len(ticks) > seen + 2, what="three more ticks")

    assert len(standing(redis_url)) == 8


def test_a_slow_endpoint_takes_nothing_from_the_others(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry(job(tenant=f"t{number}")) for number in range(20)))
    others = elsewhere(engine, 50)
    put(engine, State.slow, since_s=-600.0)

    make(tick_s=600.0)

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert len(set(standing(redis_url)) & others) >= 2


def test_an_endpoint_is_open_after_ten_slow_seconds(engine: Engine, make: Make) -> None:
    put(engine, State.slow, since_s=11.0)

    make()

    until(lambda: one(engine, "SELECT state FROM afterword_endpoints").state == "open", what="the open state")


def test_waking_without_end_leaves_pauses(make: Make) -> None:
    ticks: list[float] = []

    def count() -> None:
        ticks.append(time.monotonic())

    made = make(tick_s=600.0, leader_tasks=(count, lambda: made.wake()))
    until(lambda: len(ticks) > 10, what="eleven ticks")

    assert ticks[10] - ticks[0] >= 10 * SHORTEST_S


def test_a_stopped_dispatcher_is_followed_at_once(engine: Engine, make: Make) -> None:
    led, other = threading.Event(), worker(engine)
    first = make(leader_tasks=(led.set,))
    assert led.wait(10)

    first.stop()

    with engine.begin() as connection:
        assert leases.lead(connection, other, name="dispatch", lease_s=5.0)


def test_a_tick_ends_where_the_leadership_was_lost(engine: Engine, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "LEADER_LEASE_S", 0.0)
    monkeypatch.setattr(dispatcher, "LEADER_BEAT_S", 0.0)
    other, lost, after = worker(engine), threading.Event(), []

    def lose() -> None:
        with engine.begin() as connection:
            assert leases.lead(connection, other, name="dispatch", lease_s=50.0)
        lost.set()

    ticks: list[None] = []
    make(leader_tasks=(lose, lambda: after.append(1)), local_tasks=(lambda: ticks.append(None),))
    assert lost.wait(10)
    seen = len(ticks)

    until(lambda: len(ticks) > seen + 2, what="two more ticks")
    assert after == []


def test_a_stall_of_the_database_ends_no_lease(postgresql_url: str, redis_url: str) -> None:
    engine = open_engine(postgresql_url)
    lease, held = leased(engine, LeaseTimes(1.0, 0.1)), leased(engine, LeaseTimes(1.0, 0.1))
    lease.start(), held.start()
    (accepted,) = accept_all(engine, entry())
    with engine.begin() as connection:
        assert all(claim(connection, [ClaimRequest(str(accepted.job_id), held.worker_id)]))
    until(lambda: lease.unbroken_s() > 1.0, what="a lease without a gap")
    ticks: list[None] = []
    made = Dispatcher(
        engine, connect(redis_url), lease, tick_s=0.05, lease_s=1.0, local_tasks=(lambda: ticks.append(None),)
    )
    made.start()
    until(lambda: ticks, what="a tick")

    # All statements on this table wait for the lock: a stall that raises no error.
    with engine.begin() as stalled:
        stalled.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        stalled.execute(text("LOCK TABLE afterword_workers IN ACCESS EXCLUSIVE MODE"))
        until(lambda: lease.unbroken_s() == 0.0, what="the lease's loss of evidence")
    seen = len(ticks)
    until(lambda: len(ticks) > seen + 2 and lease.unbroken_s() > 1.0, what="ticks under a lease without a gap")

    assert status(engine, str(accepted.job_id)) == "in_progress"
    for part in (made, lease, held):
        part.stop()
    engine.dispose()


def test_a_job_whose_priority_was_raised_overtakes_its_own_nudge(engine: Engine, redis_url: str, make: Make) -> None:
    raised, others = entry(), [entry() for _ in range(3)]
    accept_all(engine, raised, *others)
    ticks: list[float] = []
    make(leader_tasks=(lambda: ticks.append(time.monotonic()),))
    until(lambda: len(standing(redis_url)) == 4, what="all nudges")

    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == raised.job.id).values(priority=0))

    with Redis.from_url(redis_url) as redis:
        until(lambda: redis.lrange("chat.run", 0, -1) == [nudge(raised.job.id, 1)], what="the better nudge")
        # It is pushed only once, in any number of ticks.
        seen = len(ticks)
        until(lambda: len(ticks) > seen + 2, what="more ticks")
        assert redis.llen("chat.run") == 1


def test_the_window_is_topped_up_between_the_ticks_while_jobs_wait(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry() for _ in range(6 * SLOTS)))
    ticks: list[None] = []
    make(tick_s=600.0, leader_tasks=(lambda: ticks.append(None),))

    with connect(redis_url) as redis:
        for _ in range(3):
            until(lambda: standing(redis_url), what="nudges in the window")
            redis.delete("chat.run\x06\x165")
    assert len(ticks) == 1


def test_nothing_is_read_between_the_ticks_while_nothing_waits(engine: Engine, redis_url: str, make: Make) -> None:
    reads: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: reads.append(arguments[2]))
    ticks: list[None] = []
    make(tick_s=600.0, local_tasks=(lambda: ticks.append(None),))
    until(lambda: ticks and any("afterword_jobs" in statement for statement in reads), what="the first tick")
    time.sleep(REFILL_S)
    seen = len(reads)

    time.sleep(3 * REFILL_S)

    assert not any("afterword_jobs" in statement and "run_at" in statement for statement in reads[seen:])


@pytest.fixture
def intake(engine: Engine, database_url: str, redis_url: str) -> Iterator[Callable[[Callable[[], int]], list[int]]]:
    """Yield a function that starts an intake with these free slots; it returns a list of the calls of `refill`."""
    started: list[tuple[Intake, Redis]] = []

    def start(free_slots: Callable[[], int]) -> list[int]:
        redis, refills = connect(redis_url), []
        made = Intake(
            engine, redis, conf(database_url, redis_url), worker_id=lambda: "w",
            free_slots=free_slots, refill=lambda: refills.append(1),
        )  # fmt: skip
        started.append((made, redis))
        made.start()
        return refills

    yield start
    for made, redis in started:
        made.stop()
        redis.close()


def accepted(engine: Engine) -> int:
    return int(one(engine, "SELECT count(*) AS jobs FROM afterword_jobs").jobs)


def test_a_job_is_nudged_at_once_only_as_far_as_slots_are_free_here(
    engine: Engine, redis_url: str, intake: Callable[..., list[int]]
) -> None:
    refills = intake(lambda: 3)

    fill(redis_url, 10)

    until(lambda: accepted(engine) == 10, what="all jobs")
    until(lambda: refills, what="the dispatcher's call")
    assert len(standing(redis_url)) == 3


def test_free_slots_of_other_workers_are_used_at_once(
    engine: Engine, redis_url: str, intake: Callable[..., list[int]]
) -> None:
    other = worker(engine, slots=4)
    accept_all(engine, running := entry())
    with engine.begin() as connection:
        assert all(claim(connection, [ClaimRequest(running.job.id, other)]))
    refills = intake(lambda: 1)

    fill(redis_url, 4)

    until(lambda: accepted(engine) == 5, what="all jobs")
    until(lambda: len(standing(redis_url)) == 4, what="four nudges: one slot here, three there")
    assert refills == []


def test_a_later_job_is_not_nudged_before_those_that_wait(
    engine: Engine, redis_url: str, intake: Callable[..., list[int]]
) -> None:
    free = [0]
    refills = intake(lambda: free[0])
    fill(redis_url, 1)
    until(lambda: refills, what="the dispatcher's call")

    free[0] = 10
    fill(redis_url, 1)

    until(lambda: len(refills) == 2, what="the second call")
    assert standing(redis_url) == []
    time.sleep(REST_S)
    fill(redis_url, 1)
    until(lambda: len(standing(redis_url)) == 1, what="a nudge")


def nudged(engine: Engine, redis_url: str) -> Counter[str]:
    """Return how many nudges in Redis each tenant has."""
    tenants = {str(row.id): row.tenant for row in rows(engine, "SELECT id, tenant FROM jobs_v1")}
    return Counter(tenants[job_id] for job_id in standing(redis_url))


def test_a_tenant_has_turns_by_its_weight(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "abc" for _ in range(20)))

    make(weight={"a": 1.0, "b": 1.0, "c": 3.0}.__getitem__)

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert nudged(engine, redis_url) == {"a": 2, "b": 2, "c": 6}


def test_priorities_order_the_jobs_of_one_tenant_only(engine: Engine, redis_url: str, make: Make) -> None:
    accept_all(engine, *(entry(job(tenant="eager", priority=0)) for _ in range(50)))
    accept_all(engine, *(entry(job(tenant="patient", priority=9)) for _ in range(50)))

    make()

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert nudged(engine, redis_url) == {"eager": SLOTS, "patient": SLOTS}
    with connect(redis_url) as redis:
        # The last nudge may stay in a worse list: none of the other tenant comes after it.
        assert redis.llen("chat.run") >= 2 * SLOTS - 1


def test_a_job_near_its_deadline_comes_first_among_the_jobs_of_its_tenant(
    engine: Engine, redis_url: str, make: Make
) -> None:
    accept_all(engine, *(entry(job(tenant="a", priority=0)) for _ in range(50)))
    near = entry(job(tenant="a", priority=9))
    accept_all(engine, near, *(entry(job(tenant="b")) for _ in range(50)))
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == near.job.id).values(deadline=from_now(30.0)))

    make()

    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    assert near.job.id in standing(redis_url)
    assert nudged(engine, redis_url) == {"a": SLOTS, "b": SLOTS}


def test_a_worker_that_leads_again_begins_with_equal_tenants(
    engine: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[None] = []
    begin = FairShare.begin
    monkeypatch.setattr(FairShare, "begin", lambda fair: begins.append(None) or begin(fair))
    monkeypatch.setattr(dispatcher, "LEADER_BEAT_S", 0.0)
    ticks: list[None] = []
    make(leader_tasks=(lambda: ticks.append(None),))
    until(lambda: len(ticks) > 3, what="four ticks")
    # The first begin is that of the new object.
    assert len(begins) == 2

    other = worker(engine)
    with engine.begin() as connection:
        connection.execute(update(leaders).values(worker_id=other, lease_until=from_now(0.3)))
    seen = len(ticks)
    until(lambda: len(ticks) > seen + 3, what="four more ticks")

    assert len(begins) == 3


def test_lanes_are_read_only_while_the_window_has_room(
    engine: Engine, redis_url: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "RANGES_A_TICK", 1)
    walks: list[Any] = []
    lanes = due.lanes
    monkeypatch.setattr(due, "lanes", lambda *given, **more: walks.append(more["after"]) or lanes(*given, **more))
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "ab" for _ in range(20)))
    ticks: list[None] = []
    make(leader_tasks=(lambda: ticks.append(None),))
    until(lambda: len(standing(redis_url)) == 2 * SLOTS, what="a full window")
    until(lambda: len(ticks) > 5, what="six ticks")

    seen = len(ticks), len(walks)
    until(lambda: len(ticks) > seen[0] + 3, what="four more ticks")

    # The next lane keeps its turn until there is room.
    assert len(walks) == seen[1]
