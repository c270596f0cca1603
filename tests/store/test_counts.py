"""Each step of a job and of a delivery costs the statements listed in tests/counts.py: alone, and for a hundred
items."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from tests.counts import MANY, STEPS, Cost
from tests.jobs.store.attempts import attempt_record, completed
from tests.store.costs import tick, webhook_tick
from tests.store.made import accept_all, entry, job, worker
from tests.webhooks.store.delivery_attempts import claimed, delivery_ids, delivery_record, receiver, refused
from worker.core.lifecycle import RETRY, Outcome
from worker.jobs.store import reclaim
from worker.jobs.store.accept import accept
from worker.jobs.store.cancel import cancel
from worker.jobs.store.claim import Claim, claim
from worker.jobs.store.inbox import take_inbox
from worker.jobs.store.record import record
from worker.store import leases
from worker.store.group_commit import Batcher
from worker.store.transitions import ClaimRequest
from worker.webhooks.store import claim as deliveries
from worker.webhooks.store.claim import DeliveryClaim
from worker.webhooks.store.record import record as record_deliveries

SLOTS = 10 * MANY
Step = Callable[[Connection], Any]


@contextmanager
def counting(engine: Engine) -> Iterator[list[Cost]]:
    """Yield a list that receives the cost of each transaction when it ends."""
    ended: list[Cost] = []
    sets: list[int] = []

    def note(_: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        sets.append(len(parameters) if many else 1)

    def end(_: Connection) -> None:
        ended.append(Cost(len(sets), sum(sets)))
        sets.clear()

    listeners = {"before_cursor_execute": note, "commit": end, "rollback": end}
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        yield ended
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)


def queued(engine: Engine, number: int, **fields: Any) -> list[str]:
    return [one.job_id for one in accept_all(engine, *(entry(job(**fields)) for _ in range(number))) if one.job_id]


def started(engine: Engine, number: int) -> list[Claim]:
    requests = [ClaimRequest(one, worker(engine)) for one in queued(engine, 1)]
    requests += [ClaimRequest(one, requests[0].worker_id) for one in queued(engine, number - 1)]
    with engine.begin() as connection:
        return [one for one in claim(connection, requests) if one is not None]


def due(engine: Engine, number: int) -> list[str]:
    """Return deliveries that are ready to be claimed."""
    receiver(engine, in_flight=SLOTS)
    ids = queued(engine, number)
    with engine.begin() as connection:
        cancel(connection, ids)
    return delivery_ids(engine)


def sent(engine: Engine, number: int) -> list[DeliveryClaim]:
    got = claimed(engine, worker(engine), *due(engine, number), slots=SLOTS)
    return [one for one in got if one is not None]


# Each function prepares `number` items for a step and returns the step.


def accepting(engine: Engine, number: int) -> Step:
    entries = [entry() for _ in range(number)]
    return lambda connection: accept(connection, entries, job_ttl_s=60)


def accepting_again(engine: Engine, number: int) -> Step:
    entries = [entry() for _ in range(number)]
    accept_all(engine, *entries)
    return lambda connection: accept(connection, entries, job_ttl_s=60)


def emptying_the_inbox(engine: Engine, number: int) -> Step:
    with engine.begin() as connection:
        for _ in range(number):
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES ('{}')"))
    return lambda connection: take_inbox(connection, limit=500, max_bytes=2**20)


def claiming(engine: Engine, number: int) -> Step:
    mine, ids = worker(engine), queued(engine, number)
    return lambda connection: claim(connection, [ClaimRequest(one, mine) for one in ids])


def completing(engine: Engine, number: int) -> Step:
    ends = [completed(one) for one in started(engine, number)]
    return lambda connection: record(connection, ends)


def completing_with_an_event(engine: Engine, number: int) -> Step:
    receiver(engine)
    return completing(engine, number)


def retrying(engine: Engine, number: int) -> Step:
    # Each retry has its own random delay.
    ends = [
        attempt_record(one, RETRY, Outcome.failed, delay_s=1 + place / 1000, answer=None)
        for place, one in enumerate(started(engine, number))
    ]
    return lambda connection: record(connection, ends)


def cancelling(engine: Engine, number: int) -> Step:
    ids = queued(engine, number)
    return lambda connection: cancel(connection, ids)


def taking_back(engine: Engine, number: int) -> Step:
    mine = started(engine, number)[0].worker_id
    with engine.begin() as connection:
        leases.resign(connection, mine)
    return reclaim.take_back


def asking_what_is_due(engine: Engine, number: int) -> Step:
    queued(engine, number)
    return tick


def claiming_deliveries(engine: Engine, number: int) -> Step:
    mine, ids = worker(engine), due(engine, number)
    return lambda connection: deliveries.claim(connection, [ClaimRequest(one, mine) for one in ids], slots=SLOTS)


def delivering(engine: Engine, number: int) -> Step:
    ends = [delivery_record(one) for one in sent(engine, number)]
    return lambda connection: record_deliveries(connection, ends, slots=SLOTS)


def delivering_again_later(engine: Engine, number: int) -> Step:
    ends = [refused(one, delay_s=5.0) for one in sent(engine, number)]
    return lambda connection: record_deliveries(connection, ends, slots=SLOTS)


def asking_which_deliveries_are_due(engine: Engine, number: int) -> Step:
    due(engine, number)
    return webhook_tick


PREPARE = {
    "accept": accepting,
    "accept duplicates": accepting_again,
    "take the inbox": emptying_the_inbox,
    "claim": claiming,
    "record completed": completing,
    "record completed, a receiver listens": completing_with_an_event,
    "record retries": retrying,
    "cancel": cancelling,
    "take back": taking_back,
    "dispatcher's tick": asking_what_is_due,
    "claim deliveries": claiming_deliveries,
    "record delivered": delivering,
    "record refused deliveries": delivering_again_later,
    "dispatcher's tick for deliveries": asking_which_deliveries_are_due,
}


def cost(engine: Engine, name: str, number: int) -> Cost:
    step = PREPARE[name](engine, number)
    with counting(engine) as transactions, engine.begin() as connection:
        step(connection)
    (only,) = transactions
    return only


def test_every_step_has_its_numbers() -> None:
    assert set(PREPARE) == set(STEPS)


@pytest.mark.parametrize("name", PREPARE)
def test_a_step_alone_costs_the_statements_of_the_table(engine: Engine, name: str) -> None:
    assert cost(engine, name, 1) == STEPS[name].alone


@pytest.mark.parametrize("name", PREPARE)
def test_a_hundred_together_cost_the_statements_of_the_table(engine: Engine, name: str) -> None:
    assert cost(engine, name, MANY) == STEPS[name].many


@pytest.mark.parametrize("number", [1, MANY], ids=["alone", "a hundred"])
def test_items_given_to_the_writer_at_once_are_one_transaction(engine: Engine, number: int) -> None:
    mine, ids = worker(engine), queued(engine, number)
    writer = Batcher(engine, max_items=MANY, last=(record, cancel))
    claims = [writer.put(claim, ClaimRequest(one, mine)) for one in ids]
    with counting(engine) as transactions:
        writer.start()
        got = [one.result(30) for one in claims]
        assert writer.close(timeout_s=30)
    assert transactions == [STEPS["claim"].alone if number == 1 else STEPS["claim"].many]

    writer = Batcher(engine, max_items=MANY, last=(record, cancel))
    ends = [writer.put(record, completed(one)) for one in got]
    with counting(engine) as transactions:
        writer.start()
        assert all(one.result(30).moved for one in ends)
        assert writer.close(timeout_s=30)
    assert transactions == [STEPS["record completed"].alone if number == 1 else STEPS["record completed"].many]


def test_claims_and_ends_that_meet_in_the_writer_share_a_transaction(engine: Engine) -> None:
    held = started(engine, 1)[0]
    (waits,) = queued(engine, 1)
    writer = Batcher(engine, max_items=MANY, last=(record, cancel))
    writes = [writer.put(claim, ClaimRequest(waits, held.worker_id)), writer.put(record, completed(held))]

    with counting(engine) as transactions:
        writer.start()
        assert all(one.result(30) for one in writes)
        assert writer.close(timeout_s=30)

    # The statement that opens the transaction counts once.
    both = STEPS["claim"].alone.statements + STEPS["record completed"].alone.statements - 1
    assert [one.statements for one in transactions] == [both]
