"""Receivers that jobs name before they are registered: registration gives held deliveries their final form."""

import itertools
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from tests.jobs.store.attempts import ANSWER, attempt_record
from tests.pool.workers import until
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from tests.store.receiving import claimed, found, registration, sealed
from worker.core.lifecycle import COMPLETE, DROP_DELIVERY, Outcome
from worker.jobs.store import cancel
from worker.jobs.store.record import record
from worker.store import transitions
from worker.verify import verify
from worker.webhooks.store import placeholders, receivers, redeliver
from worker.webhooks.store.tables import deliveries
from worker.webhooks.store.tables import receivers as table

ROWS = "SELECT * FROM afterword_deliveries ORDER BY created_at, sequence, id"
REFUSED: dict[str, Any] = {"request": {}}


def named(**fields: Any) -> dict[str, Any]:
    return job(webhook={"to": "billing"}, **fields)


def cancelled(engine: Engine, *jobs: dict[str, Any]) -> list[str]:
    """Accept jobs and end them, all in one transaction; return their ids."""
    ids = [str(uuid.uuid4()) for _ in jobs]
    accept_all(engine, *(entry(each, id=job_id) for each, job_id in zip(jobs, ids, strict=True)))
    with engine.begin() as connection:
        cancel.cancel(connection, ids)
    return ids


def failed(engine: Engine, **fields: Any) -> str:
    """Make a job fail because its request is refused; return its id."""
    job_id = str(uuid.uuid4())
    accept_all(engine, entry({**named(**fields), **REFUSED}, id=job_id))
    return job_id


def answered(engine: Engine, response: str) -> str:
    """Complete a job with this answer; return its id."""
    job_id = str(uuid.uuid4())
    accept_all(engine, entry(named(), id=job_id))
    got = claim_one(engine, worker(engine), job_id)
    assert got is not None
    with engine.begin() as connection:
        record(connection, [attempt_record(got, COMPLETE, Outcome.completed, answer={**ANSWER, "response": response})])
    return job_id


def fitting(engine: Engine, **values: Any) -> placeholders.Adoption:
    """Begin to register the receiver that the jobs name."""
    with engine.begin() as connection:
        new = placeholders.find(connection, "default", "billing")
        assert new is not None
        begun = placeholders.Adoption(new, registration(**values), sealed(new))
        placeholders.reserve(connection, begun)
    return begun


def fit(engine: Engine, begun: placeholders.Adoption) -> bool | None:
    with engine.begin() as connection:
        return placeholders.adopt(connection, begun)


def register(engine: Engine, **values: Any) -> str:
    """Register the receiver and queue its held deliveries; return its id."""
    begun = fitting(engine, **values)
    while fit(engine, begun) is False:
        pass
    with engine.begin() as connection:
        redeliver.resume(connection, begun.receiver_id)
    return begun.receiver_id


def state_of(engine: Engine) -> dict[str, Any]:
    """Return the deliveries by job id."""
    return {str(row.job_id): row for row in rows(engine, ROWS)}


def sends(engine: Engine, job_id: str) -> bytes | None:
    """Return the body of a job's delivery."""
    holder = worker(engine)
    got = claimed(engine, holder, str(state_of(engine)[job_id].id))
    assert got is not None
    return got.body


def flaws(engine: Engine) -> list[verify.Violation]:
    return list(verify.verify(engine, grace_s=0.0).broken)


def test_a_receiver_that_wants_no_answers_gets_none_from_held_deliveries(engine: Engine) -> None:
    (job_id,) = cancelled(engine, named())
    assert state_of(engine)[job_id].variant == "full"

    register(engine, payload="thin")

    assert state_of(engine)[job_id].variant == "thin"
    assert b'"result_omitted":true' in (sends(engine, job_id) or b"")


def test_a_receiver_that_wants_large_answers_is_sent_those_that_were_on_hold(engine: Engine) -> None:
    # Longer than a receiver without `payload` gets, shorter than the largest answer that is sent.
    job_id = answered(engine, '{"content":"%s"}' % ("x" * 100_000))
    assert state_of(engine)[job_id].variant == "thin"

    register(engine, payload="full")

    assert state_of(engine)[job_id].variant == "full"
    assert 64 * 1024 < len(sends(engine, job_id) or b"") <= 256 * 1024


def test_a_receiver_with_openais_libraries_is_sent_their_words(engine: Engine) -> None:
    (job_id,) = cancelled(engine, named())

    register(engine, profile="openai")

    assert b'"object":"event"' in (sends(engine, job_id) or b"")


def test_held_deliveries_that_the_registration_does_not_want_are_cancelled(engine: Engine) -> None:
    (unwanted,) = cancelled(engine, named())
    wanted = failed(engine)

    register(engine, events=["job.failed"], payload="thin")

    assert {job_id: row.status for job_id, row in state_of(engine).items()} == {unwanted: "cancelled", wanted: "queued"}
    assert {row.variant for row in state_of(engine).values()} == {"thin"}
    assert state_of(engine)[unwanted].finished_at is not None


def test_places_in_the_order_are_given_as_the_jobs_ended(engine: Engine) -> None:
    first = [failed(engine, ordering_key="a"), failed(engine, ordering_key="b")]
    skipped = cancelled(engine, named(ordering_key="a"))
    # The failures of one transaction have the same instant; the feed numbers them by id.
    more = sorted(failed_together(engine, 5, ordering_key="a"))
    unordered = failed(engine)

    receiver_id = register(engine, events=["job.failed"], ordering="per_key")

    row = state_of(engine)
    assert [(row[each].ordering_key, row[each].sequence) for each in (first[0], *more)] == [
        ("a", place) for place in range(1, 7)
    ]
    assert (row[first[1]].ordering_key, row[first[1]].sequence) == ("b", 1)
    assert (row[unordered].ordering_key, row[unordered].waiting_for) == (None, None)
    assert [row[each].waiting_for for each in (first[0], *more)] == [None, *["order"] * 5]
    assert (row[skipped[0]].status, row[skipped[0]].ordering_key) == ("cancelled", None)
    following = failed(engine, ordering_key="a")
    assert (state_of(engine)[following].sequence, state_of(engine)[following].waiting_for) == (7, "order")
    assert found(engine, receiver_id).status == "enabled"
    assert flaws(engine) == []


def failed_together(engine: Engine, count: int, **fields: Any) -> list[str]:
    ids = [str(uuid.uuid4()) for _ in range(count)]
    accept_all(engine, *(entry({**named(**fields), **REFUSED}, id=job_id) for job_id in ids))
    return ids


def test_many_deliveries_are_adapted_batch_by_batch_in_one_order(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placeholders, "BATCH", 2)
    ended = list(itertools.chain(*(sorted(failed_together(engine, count, ordering_key="k")) for count in (1, 3, 2, 2))))

    begun = fitting(engine, ordering="per_key")
    steps = list(iter(lambda: fit(engine, begun), True))

    # A batch ends where the instant changes; SQLite's instants are milliseconds, so two endings may share one.
    assert 1 <= len(steps) <= 4
    assert set(steps) == {False}
    assert [state_of(engine)[each].sequence for each in ended] == list(range(1, 9))


def test_jobs_that_end_before_the_registration_are_held_and_adapted_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placeholders, "BATCH", 1)
    early = failed(engine, ordering_key="k")
    begun = fitting(engine, payload="thin", ordering="per_key", events=["job.failed"])
    assert fit(engine, begun) is False

    late = failed(engine, ordering_key="k")
    (unwanted,) = cancelled(engine, named(ordering_key="k"))
    while fit(engine, begun) is False:
        pass

    row = state_of(engine)
    assert [(row[each].status, row[each].sequence, row[each].variant) for each in (early, late)] == [
        ("held", 1, "thin"),
        ("held", 2, "thin"),
    ]
    assert row[unwanted].status == "cancelled"


def test_an_interrupted_registration_is_started_again_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placeholders, "BATCH", 1)
    ids = [failed(engine, ordering_key="k") for _ in range(3)]
    broken = fitting(engine, ordering="per_key", profile="openai")
    assert fit(engine, broken) is False

    register(engine, payload="thin")

    row = state_of(engine)
    assert [(row[each].ordering_key, row[each].sequence, row[each].variant) for each in ids] == [(None, 1, "thin")] * 3
    assert fit(engine, broken) is None
    assert flaws(engine) == []


def test_of_two_concurrent_registrations_the_later_wins_completely(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placeholders, "BATCH", 1)
    ids = [failed(engine) for _ in range(3)]
    first = fitting(engine, profile="openai")
    assert fit(engine, first) is False
    second = fitting(engine, payload="thin")
    assert fit(engine, second) is False

    assert fit(engine, first) is None

    while fit(engine, second) is False:
        pass
    assert [state_of(engine)[each].variant for each in ids] == ["thin"] * 3
    assert found(engine, second.receiver_id).registration == second.registration


def test_a_receiver_removed_in_between_is_not_registered(engine: Engine) -> None:
    failed(engine)
    begun = fitting(engine)
    with engine.begin() as connection:
        assert receivers.remove(connection, begun.receiver_id)

    assert fit(engine, begun) is None
    assert found(engine, begun.receiver_id).status == "removed"


@pytest.mark.parametrize("reason", ["maintenance", "not_registered"])
def test_being_unregistered_does_not_depend_on_the_shown_reason(engine: Engine, reason: str) -> None:
    failed(engine)
    with engine.begin() as connection:
        connection.execute(update(table).values(disabled_reason=reason))
    register(engine)
    with engine.begin() as connection:
        known = receivers.find(connection, "default", "billing")
        assert known is not None
        assert receivers.disable(connection, known.id, "not_registered")

        assert placeholders.find(connection, "default", "billing") is None
        assert not known.is_placeholder


def test_a_delivery_dropped_before_the_registration_has_no_place(engine: Engine) -> None:
    old, young = (failed(engine, ordering_key="k") for _ in range(2))
    begun = fitting(engine, ordering="per_key")
    with engine.begin() as connection:
        key = deliveries.c.job_id == old
        ids = [(row.id, row.attempt) for row in connection.execute(select(deliveries).where(key))]
        transitions.apply(connection, DROP_DELIVERY, ids, table=deliveries)

    assert fit(engine, begun) is True

    assert (state_of(engine)[old].status, state_of(engine)[old].ordering_key) == ("cancelled", None)
    assert state_of(engine)[young].sequence == 1


def test_a_job_that_ends_during_the_last_batch_is_sent_as_the_registration_wants(engine: Engine) -> None:
    """The end of the job reads the unregistered receiver, waits for its lock, and reads the receiver again."""
    failed(engine, ordering_key="k")
    begun = fitting(engine, payload="thin", ordering="per_key", events=["job.failed"])
    ends: list[str] = []

    def end() -> None:
        cancelled(engine, named())
        ends.append(failed(engine, ordering_key="k"))

    thread = threading.Thread(target=end)
    with engine.begin() as connection:
        assert placeholders.adopt(connection, begun) is True
        thread.start()
        if engine.dialect.name == "postgresql":
            until(waits_for_a_lock(engine), what="the end of a job waits")
    thread.join(60)

    row = state_of(engine)
    assert len(row) == 2
    assert (row[ends[0]].variant, row[ends[0]].sequence, row[ends[0]].status) == ("thin", 2, "queued")


def waits_for_a_lock(engine: Engine) -> Callable[[], bool]:
    waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    return lambda: one(engine, waiting).n > 0


def test_jobs_that_end_during_a_registration_are_sent_correctly(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placeholders, "BATCH", 8)
    for _ in range(20):
        failed(engine, ordering_key="k")

    def end() -> None:
        for _ in range(15):
            failed(engine, ordering_key="k")
            cancelled(engine, named(ordering_key="k"))

    threads = [threading.Thread(target=end) for _ in range(2)]
    for thread in threads:
        thread.start()
    receiver_id = register(engine, payload="thin", ordering="per_key", events=["job.failed"])
    for thread in threads:
        thread.join(60)

    assert found(engine, receiver_id).status == "enabled"
    kept = [row for row in rows(engine, ROWS) if row.status != "cancelled"]
    assert {(row.event_type, row.variant) for row in kept} == {("job.failed", "thin")}
    assert [row.sequence for row in kept] == list(range(1, len(kept) + 1))
    assert flaws(engine) == []
