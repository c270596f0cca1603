"""ACCEPT: one message makes one row, the same id or key is the same job, and no message is dropped."""

import json
import threading
import uuid

import pytest
from sqlalchemy import Engine, select

from tests.store.made import REQUEST, accept_all, entry, job, one, rows
from worker.jobs.store.accept import Accepted, Entry
from worker.jobs.store.inbox import take_inbox
from worker.store.engine import open_engine
from worker.store.tables import jobs

OTHER = {**REQUEST, "model": "other"}


def test_a_job_is_visible_as_queued_with_all_it_said(engine: Engine) -> None:
    said = job(tenant="acme", priority=2, batch="b", custom_id="c", metadata={"a": "b"}, max_attempts=3)

    (accepted,) = accept_all(engine, entry(said))

    assert accepted == Accepted(accepted.job_id, "queued", 2, True)
    row = one(engine, "SELECT * FROM jobs_v1")
    assert (row.status, row.tenant, row.priority, row.batch, row.custom_id) == ("queued", "acme", 2, "b", "c")
    assert (row.attempts, row.max_attempts, row.waiting_for, row.cursor) == (0, 3, "slot", None)
    assert "b" in str(row.metadata)
    assert one(engine, "SELECT outcome FROM job_ids_v1").outcome == "accepted"


def test_the_request_is_kept_byte_for_byte(engine: Engine) -> None:
    read = entry(job(request={**REQUEST, "temperature": 1.0, "x": 10**30}))

    accept_all(engine, read)

    body = one(engine, "SELECT body FROM afterword_requests").body
    assert bytes(body).decode() == read.job.request


def test_the_same_id_twice_is_one_job(engine: Engine) -> None:
    first = str(uuid.uuid4())

    accept_all(engine, entry(id=first))
    again = accept_all(engine, entry(id=first), entry(id=first))

    assert [a.outcome for a in again] == ["duplicate", "duplicate"]
    assert len(rows(engine, "SELECT 1 FROM jobs_v1")) == 1


def test_the_same_id_twice_in_one_batch_is_one_job(engine: Engine) -> None:
    first = str(uuid.uuid4())

    accepted = accept_all(engine, entry(id=first), entry(id=first))

    assert sorted(a.outcome for a in accepted) == ["duplicate", "queued"]


def test_the_same_id_with_another_request_is_a_dead_letter(engine: Engine) -> None:
    first = str(uuid.uuid4())

    accept_all(engine, entry(id=first))
    (conflict,) = accept_all(engine, entry(job(request=OTHER), id=first))

    assert conflict.outcome == "dead"
    letter = one(engine, "SELECT * FROM afterword_dead_letters")
    assert (letter.reason, letter.job_id) == ("id_conflict", first)
    assert b"other" in bytes(letter.entry)


def test_the_same_key_twice_is_one_job_and_both_ids_resolve(engine: Engine) -> None:
    keyed = job(idempotency_key="k")
    first, second = entry(keyed), entry(keyed)

    accept_all(engine, first)
    accept_all(engine, second)
    accept_all(engine, second)

    found = rows(engine, "SELECT id, job_id, outcome FROM job_ids_v1 ORDER BY outcome")
    assert [(str(r.id), str(r.job_id), r.outcome) for r in found] == [
        (first.job.id, first.job.id, "accepted"),
        (second.job.id, first.job.id, "duplicate"),
    ]


def test_key_order_and_whitespace_are_the_same_request(engine: Engine) -> None:
    turned = dict(reversed(REQUEST.items()))

    accept_all(engine, entry(job(idempotency_key="k")))
    (again,) = accept_all(engine, entry(job(request=turned, idempotency_key="k")))

    assert again.outcome == "duplicate"


def test_another_request_under_a_used_key_is_a_visible_failed_job(engine: Engine) -> None:
    accept_all(engine, entry(job(idempotency_key="k")))
    second = entry(job(idempotency_key="k", request=OTHER))
    (conflict,) = accept_all(engine, second)
    (again,) = accept_all(engine, second)

    assert (conflict.outcome, again.outcome) == ("conflict", "duplicate")
    row = one(engine, "SELECT * FROM jobs_v1 WHERE status = 'failed'")
    assert (str(row.id), row.error_code, row.idempotency_key) == (second.job.id, "idempotency_conflict", "k")
    assert row.cursor == 1


def test_one_key_of_two_tenants_is_two_jobs(engine: Engine) -> None:
    accepted = accept_all(
        engine, entry(job(idempotency_key="k")), entry(job(idempotency_key="k", tenant="other", request=OTHER))
    )

    assert [a.outcome for a in accepted] == ["queued", "queued"]


def test_a_bad_request_is_a_failed_job_that_lists_every_fault(engine: Engine) -> None:
    accept_all(engine, entry(job(request={"model": 3, "messages": [], "temperature": 5})))

    row = one(engine, "SELECT status, error_code, error, finished_at FROM jobs_v1")
    assert (row.status, row.error_code) == ("failed", "invalid_request")
    assert all(path in str(row.error) for path in ("request.model", "request.messages", "request.temperature"))


def test_a_refused_request_does_not_use_up_its_key(engine: Engine) -> None:
    accept_all(engine, entry(job(request={}, idempotency_key="k")))

    (accepted,) = accept_all(engine, entry(job(idempotency_key="k")))

    assert accepted.outcome == "queued"


def test_a_start_in_the_future_is_not_due(engine: Engine) -> None:
    (accepted,) = accept_all(engine, entry(job(not_before="2999-01-01T00:00:00Z")))

    assert not accepted.due
    row = one(engine, "SELECT waiting_for, waiting_until FROM jobs_v1")
    assert row.waiting_for == "start"
    assert str(row.waiting_until).startswith("2999-01-01")


def test_a_row_of_the_inbox_is_queued_and_its_id_resolves_to_the_id_inside(engine: Engine) -> None:
    inside, outside = str(uuid.uuid4()), str(uuid.uuid4())

    accept_all(engine, entry(job(id=inside), alias=outside))

    found = rows(engine, "SELECT id, job_id FROM job_ids_v1 ORDER BY outcome, id")
    assert {(str(r.id), str(r.job_id)) for r in found} == {(inside, inside), (outside, inside)}


def test_finished_jobs_are_numbered_without_gaps(engine: Engine) -> None:
    for _ in range(3):
        accept_all(engine, entry(job(request={})), entry(job(request={})))

    assert [r.cursor for r in rows(engine, "SELECT cursor FROM jobs_v1 ORDER BY cursor")] == [1, 2, 3, 4, 5, 6]


def test_many_at_once_with_one_key_make_one_row(engine: Engine) -> None:
    entries = [entry(job(idempotency_key="k")) for _ in range(32)]
    start = threading.Barrier(8)

    def submit(part: list) -> None:  # type: ignore[type-arg]
        start.wait()
        for one_entry in part:
            accept_all(engine, one_entry)

    threads = [threading.Thread(target=submit, args=(entries[place::8],)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(rows(engine, "SELECT 1 FROM jobs_v1")) == 1
    resolved = rows(engine, "SELECT DISTINCT job_id FROM job_ids_v1")
    assert len(resolved) == 1
    assert len(rows(engine, "SELECT 1 FROM job_ids_v1")) == 32


@pytest.mark.parametrize("job", ["x'7b7d'", "CAST(x'ff' AS TEXT)", "3", "'{}'"])
def test_any_row_of_a_sqlite_inbox_can_be_taken(sqlite_url: str, job: str) -> None:
    engine = open_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO submit_v1 (job) VALUES ({job})")
    with engine.begin() as connection:
        (taken,) = take_inbox(connection, limit=10, max_bytes=1000)

    assert isinstance(taken.job, bytes)
    engine.dispose()


def test_the_inbox_is_taken_in_bounded_pieces(engine: Engine) -> None:
    with engine.begin() as connection:
        for _ in range(5):
            connection.exec_driver_sql("INSERT INTO submit_v1 (job) VALUES ('0123456789')")
    taken = []
    for _ in range(4):
        with engine.begin() as connection:
            taken.append(len(take_inbox(connection, limit=10, max_bytes=15)))

    assert taken == [2, 2, 1, 0]


def test_the_earlier_of_two_messages_with_one_key_is_the_job(engine: Engine) -> None:
    high, low = "f" * 8 + "-0000-4000-8000-000000000000", "0" * 8 + "-0000-4000-8000-000000000000"

    accept_all(engine, entry(job(idempotency_key="k"), id=high), entry(job(idempotency_key="k"), id=low))

    assert [str(row.id) for row in rows(engine, "SELECT id FROM jobs_v1")] == [high]


def test_an_id_that_became_another_job_stays_that_job(engine: Engine) -> None:
    first, second = entry(job(idempotency_key="k")), str(uuid.uuid4())
    accept_all(engine, first, entry(job(idempotency_key="k"), id=second))

    (same,) = accept_all(engine, entry(id=second))
    (other,) = accept_all(engine, entry(job(request=OTHER), id=second))

    assert (same.job_id, same.outcome) == (first.job.id, "duplicate")
    assert other.outcome == "dead"
    assert len(rows(engine, "SELECT 1 FROM jobs_v1")) == 1


def test_copies_of_one_conflicting_message_in_a_batch_are_each_answered(engine: Engine) -> None:
    accept_all(engine, entry(job(idempotency_key="k")))
    twice = entry(job(idempotency_key="k", request=OTHER))

    accepted = accept_all(engine, twice, twice, entry())

    assert sorted(a.outcome for a in accepted) == ["conflict", "duplicate", "queued"]


def test_a_key_whose_first_message_could_not_become_a_row_goes_to_the_next(engine: Engine) -> None:
    used = str(uuid.uuid4())
    accept_all(engine, entry(id=used))
    first, second = entry(job(idempotency_key="k", request=OTHER), id=used), entry(job(idempotency_key="k"))

    accepted = accept_all(engine, first, second)

    assert sorted(a.outcome for a in accepted) == ["dead", "queued"]
    assert len(rows(engine, "SELECT 1 FROM jobs_v1 WHERE idempotency_key = 'k'")) == 1


def test_a_start_in_the_past_is_now_and_one_in_the_future_moves_the_deadline(engine: Engine) -> None:
    past, future = entry(job(not_before="0001-01-01T00:00:00Z")), entry(job(not_before="2999-01-01T00:00:00Z"))
    accept_all(engine, past, future)

    statement = "SELECT CAST(not_before AS TEXT) AS start, waiting_for, CAST(deadline AS TEXT) AS over FROM jobs_v1"
    ages = {row.start[:4]: row for row in rows(engine, statement)}
    assert ages["1970"].waiting_for == "slot"
    assert ages["2999"].over.startswith("2999-01-01")


def test_the_latest_possible_start_leaves_a_readable_row(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "9999-12-31T23:59:59Z"
    fields = ({"not_before": last}, {"not_before": "9999-12-30T12:00:00Z"}, {"deadline": last})
    accept_all(engine, *(entry(job(**each)) for each in fields), job_ttl_s=86_400.0)
    # Psycopg reads an instant in the session's time zone, and Python has no year 10000.
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    abroad = open_engine(database_url)

    found = rows(abroad, "SELECT * FROM jobs_v1")

    assert [str(row.deadline)[:4] for row in found] == ["9999"] * 3
    abroad.dispose()


@pytest.mark.parametrize("early", ["0001-01-01T00:00:02.047Z", "1969-12-31T23:59:59.5Z"])
def test_a_deadline_of_long_ago_is_shown_as_a_time(sqlite_url: str, early: str) -> None:
    engine = open_engine(sqlite_url)
    accept_all(engine, entry(job(deadline=early)))

    assert one(engine, "SELECT deadline FROM jobs_v1").deadline == "1970-01-01T00:00:00.000000Z"
    engine.dispose()


def test_text_that_the_views_cannot_show_is_kept_in_the_bytes(engine: Engine) -> None:
    odd = {**REQUEST, "messages": [{"role": "user", "content": 'a\0 "\\u0000" \\ é 😀'}]}
    read = entry(job(request=odd), id=str(uuid.uuid4()))

    accept_all(engine, read)

    kept = one(engine, "SELECT body, CAST(request AS TEXT) AS shown FROM afterword_requests")
    assert bytes(kept.body).decode() == read.job.request
    assert "\\u0000" in read.job.request
    assert json.loads(kept.shown)["messages"][0]["content"] == 'a\ufffd "\\u0000" \\ é 😀'


def test_a_mixed_batch_keeps_every_field_of_every_job(engine: Engine) -> None:
    said = {
        "tenant": "acme \"'\\", "priority": 0, "not_before": "2998-12-31T23:59:59.123456+01:00",
        "deadline": "2999-01-01T00:00:00.654321Z", "timeout_s": 0.1, "max_attempts": 9, "webhook": {"to": "r"},
        "ordering_key": "o", "batch": "b", "custom_id": "é", "idempotency_key": "k", "metadata": {"a": "\\u00e9"},
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }  # fmt: skip
    full, bare, refused = entry(job(**said)), entry(), entry(job(request={}, idempotency_key="k2"))

    accepted = accept_all(engine, full, refused, bare)

    assert {a.job_id: a.outcome for a in accepted} == {
        full.job.id: "queued", refused.job.id: "refused", bare.job.id: "queued"
    }  # fmt: skip
    assert _row(engine, full) == _said(full, status="queued", owns_key=True)
    assert _row(engine, bare) == _said(bare, status="queued", owns_key=False)
    assert _row(engine, refused) == _said(refused, status="failed", owns_key=False)


def _row(engine: Engine, wanted: Entry) -> dict[str, object]:
    names = [name for name in _said(wanted, status="", owns_key=False) if name != "metadata"]
    with engine.begin() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == wanted.job.id)).one()._mapping
    metadata = row["metadata"] and json.loads(row["metadata"])
    return {name: row[name] for name in names} | {"metadata": metadata}


def _said(wanted: Entry, *, status: str, owns_key: bool) -> dict[str, object]:
    read = wanted.job
    same = (
        "tenant", "priority", "not_before", "timeout_s", "max_attempts", "webhook", "ordering_key", "batch",
        "custom_id", "idempotency_key", "metadata", "traceparent", "fingerprint", "endpoint", "model", "streamed",
        "token_limit",
    )  # fmt: skip
    ours = {"status": status, "owns_key": owns_key, "choices": read.n}
    given = {"deadline": read.deadline} if read.deadline else {}
    return {name: getattr(read, name) for name in same} | ours | given


def test_hundreds_of_messages_and_their_copies_are_accepted_at_once(engine: Engine) -> None:
    first = [entry(job(idempotency_key=f"k{number}")) for number in range(300)]
    same_key = [entry(job(idempotency_key=f"k{number}")) for number in range(300)]

    accept_all(engine, *first)
    again = accept_all(engine, *first, *same_key)

    assert [a.outcome for a in again] == ["duplicate"] * 600
    assert len(rows(engine, "SELECT 1 FROM jobs_v1")) == 300
    assert len(rows(engine, "SELECT 1 FROM job_ids_v1")) == 600
