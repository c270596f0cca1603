"""Concurrent changes of deliveries on PostgreSQL: no deadlock, and no delivery stays on hold forever."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text, update
from structlog.testing import capture_logs

from tests.pool.workers import until
from tests.store.made import accept_all, entry, job, rows, worker
from tests.webhooks.store.delivery_attempts import DELIVERIES, claimed, delivery_ids, delivery_record, ended, receiver
from worker.jobs.store import cancel
from worker.store import leases
from worker.store.clock import from_now
from worker.store.engine import open_engine
from worker.store.group_commit import Batcher
from worker.store.transitions import ClaimRequest
from worker.webhooks.store import expire, ordering, receivers, redeliver
from worker.webhooks.store.claim import DeliveryClaim, claim
from worker.webhooks.store.due import ReceiverLane
from worker.webhooks.store.record import DeliveryRecord, RecordedDelivery, record
from worker.webhooks.store.tables import deliveries

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    made = open_engine(postgresql_url)
    yield made
    made.dispose()


def waits(engine: Engine) -> bool:
    """Return whether a session waits for a lock. Each look needs its own transaction, because a transaction always sees
    the same activity.
    """
    with engine.connect() as connection:
        return bool(connection.execute(WAITING).scalar())


@contextmanager
def enabled_meanwhile(engine: Engine, receiver_id: str) -> Iterator[Connection]:
    """Yield a transaction. Before it commits, another session enables the receiver and resumes its held deliveries."""

    def enable() -> None:
        with engine.begin() as connection:
            receivers.enable(connection, receiver_id)
        with engine.begin() as connection:
            redeliver.resume(connection, receiver_id)

    thread = threading.Thread(target=enable)
    with engine.begin() as connection:
        yield connection
        thread.start()
        until(lambda: not thread.is_alive() or waits(engine), what="the other session is done or waits for our lock")
    thread.join()


def disabled(engine: Engine) -> str:
    receiver_id = receiver(engine)
    with engine.begin() as connection:
        receivers.disable(connection, receiver_id)
    return receiver_id


def test_the_dispatcher_holds_no_delivery_that_is_being_resumed(engine: Engine) -> None:
    receiver_id = disabled(engine)
    ended(engine)
    with engine.begin() as connection:
        connection.execute(update(deliveries).values(status="queued"))

    with enabled_meanwhile(engine, receiver_id) as connection:
        assert expire.hold_or_drop(connection, ReceiverLane(receiver_id, None)) == 1

    assert [row.status for row in rows(engine, DELIVERIES)] == ["queued"]


def test_a_job_that_ends_while_its_receiver_is_enabled_is_sent_to_it(engine: Engine) -> None:
    receiver_id = disabled(engine)
    job_id = str(uuid.uuid4())
    accept_all(engine, entry(job(), id=job_id))

    with enabled_meanwhile(engine, receiver_id) as connection:
        cancel.cancel(connection, [job_id])

    assert [row.status for row in rows(engine, DELIVERIES)] == ["queued"]


def test_two_workers_that_begin_and_end_deliveries_do_not_deadlock(engine: Engine) -> None:
    names = ("one", "other")
    for name in names:
        receiver(engine, name, is_default=False)
    holders = [worker(engine), worker(engine)]
    mine: dict[str, list[str]] = {name: [] for name in names}
    for name in names * 2:
        ended(engine, webhook={"to": name})
        mine[name].append(delivery_ids(engine)[-1])
    running = {name: claimed(engine, holder, mine[name][0])[0] for name, holder in zip(names, holders, strict=True)}
    met = threading.Barrier(2)

    def record_all(connection: Connection, records: Sequence[DeliveryRecord]) -> list[RecordedDelivery]:
        return record(connection, records, slots=100)

    def claim_together(connection: Connection, requests: Sequence[ClaimRequest]) -> list[DeliveryClaim | None]:
        found = claim(connection, requests, slots=100)
        met.wait(10)
        return found

    # Each writer starts a delivery for the other's receiver and ends one for its own.
    writers = [Batcher(engine, apart=True) for _ in names]
    with capture_logs() as lines:
        futures: list[Any] = []
        for writer, name, other, holder in zip(writers, names, names[::-1], holders, strict=True):
            got = running[name]
            assert got is not None
            futures += [
                writer.put(claim_together, ClaimRequest(mine[other][1], holder)),
                writer.put(record_all, delivery_record(got)),
            ]
        for writer in writers:
            writer.start()
        assert all(future.result(20) for future in futures)
        for writer in writers:
            assert writer.close(timeout_s=10)

    assert lines == []


def struck_off(engine: Engine, worker_id: str, *, take_back: bool) -> None:
    """End a worker's lease; if `take_back`, queue its deliveries again."""
    with engine.begin() as connection:
        leases.resign(connection, worker_id)
    if take_back:
        with engine.begin() as connection:
            assert expire.take_back(connection) == 1


def met_by(engine: Engine, got: DeliveryClaim, step: Callable[[Connection], Any]) -> bool:
    """Record the end of a delivery while another session runs `step`; return whether the delivery moved.

    The step begins after the record has locked its receiver, and runs until it must wait for that lock.
    """
    thread = threading.Thread(target=lambda: in_transaction(engine, step))
    with engine.begin() as connection:
        ordering.lock(connection, [got.receiver_id])
        thread.start()
        until(lambda: not thread.is_alive() or waits(engine), what="the other session is done or waits for our lock")
        (written,) = record(connection, [delivery_record(got)], slots=100)
    thread.join()
    return written.moved


def in_transaction(engine: Engine, step: Callable[[Connection], Any]) -> None:
    with engine.begin() as connection:
        step(connection)


def test_a_late_answer_and_the_next_attempt_do_not_deadlock(engine: Engine) -> None:
    receiver(engine)
    ended(engine)
    (got,) = claimed(engine, lost := worker(engine), *delivery_ids(engine))
    assert got is not None
    struck_off(engine, lost, take_back=True)
    other = worker(engine)

    assert met_by(engine, got, lambda connection: claim(connection, [ClaimRequest(got.delivery_id, other)], slots=100))

    assert [row.status for row in rows(engine, DELIVERIES)] == ["delivered"]


def test_a_late_answer_and_the_take_back_of_its_delivery_do_not_deadlock(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    ended(engine, ordering_key="k")
    (got,) = claimed(engine, lost := worker(engine), *delivery_ids(engine))
    assert got is not None
    with engine.begin() as connection:
        # This is the last attempt: when it is taken back, the delivery fails and the next delivery of its key may go.
        connection.execute(update(deliveries).values(attempts_used=100))
    struck_off(engine, lost, take_back=False)

    assert met_by(engine, got, expire.take_back)

    assert [row.status for row in rows(engine, DELIVERIES)] == ["delivered"]


def test_a_release_and_an_expiry_of_the_next_delivery_do_not_deadlock(engine: Engine) -> None:
    receiver(engine, ordering="per_key")
    for _ in range(2):
        ended(engine, ordering_key="k")
    (got,) = claimed(engine, worker(engine), delivery_ids(engine)[0])
    assert got is not None
    with engine.begin() as connection:
        connection.execute(update(deliveries).where(deliveries.c.sequence == 2).values(deadline=from_now(-1)))

    assert met_by(engine, got, expire.give_up)

    assert [row.status for row in rows(engine, DELIVERIES)] == ["delivered", "failed"]


def test_the_search_for_a_dead_workers_deliveries_reads_only_deliveries_in_flight(sqlite_url: str) -> None:
    made = open_engine(sqlite_url)
    receiver(made)
    ended(made)
    with made.begin() as connection:
        connection.execute(text("ANALYZE"))
        statement = expire.orphans().compile(made, compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")]
    made.dispose()

    assert "afterword_deliveries_held" in plan[0], plan
