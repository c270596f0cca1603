"""Unread jobs: the views and filters know them by the columns that their producer fills beside the text."""

import json
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.jobs.store.orders import by_status, counted, give
from tests.producers.made import accept_inbox
from tests.store.made import REQUEST, accept_all, entry, job, one, rows
from worker.jobs.core.filter import parse
from worker.jobs.store import bulk_update, cancel
from worker.jobs.store.bulk_update import count_unread

NAMES = ("tenant", "batch", "custom_id", "idempotency_key")


def put(engine: Engine, message: dict[str, Any] | None = None, **beside: Any) -> str:
    """Insert a job through submit_v1, with the columns `beside` its text; return its id."""
    values = {"id": str(uuid.uuid4()), "job": json.dumps(message or {"request": REQUEST}), **beside}
    with engine.begin() as connection:
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        id_place = "CAST(:id AS uuid)" if engine.dialect.name == "postgresql" else ":id"
        connection.execute(
            text(f"INSERT INTO submit_v1 ({names}) VALUES ({places.replace(':id,', f'{id_place},', 1)})"), values
        )
    return str(values["id"])


def shown(engine: Engine, job_id: str) -> tuple[Any, ...]:
    row = one(engine, f"SELECT {', '.join(NAMES)}, deadline FROM jobs_v1 WHERE id = :id", id=job_id)
    return (*row[:4], row.deadline is not None)


def test_a_row_without_names_beside_the_text_shows_none_until_it_is_read(engine: Engine) -> None:
    said = {"tenant": "acme", "batch": "b", "custom_id": "c", "idempotency_key": "k"}
    new = put(engine, job(**said))

    assert shown(engine, new) == (None, None, None, None, False)
    accept_inbox(engine)
    assert shown(engine, new) == ("acme", "b", "c", "k", True)


def test_names_beside_the_text_are_shown_from_the_insert_on(engine: Engine) -> None:
    said = {"tenant": "acme", "batch": "b", "custom_id": "c", "idempotency_key": "k"}
    new = put(engine, job(**said), **said)

    assert shown(engine, new) == ("acme", "b", "c", "k", False)
    for name, value in said.items():
        found = rows(engine, f"SELECT id, status FROM jobs_v1 WHERE {name} = :value", value=value)
        assert [(str(row.id), row.status) for row in found] == [(new, "queued")]
    accept_inbox(engine)
    assert shown(engine, new) == ("acme", "b", "c", "k", True)


def test_the_text_decides_where_the_names_beside_it_say_otherwise(engine: Engine) -> None:
    new = put(engine, job(tenant="acme", batch="right"), tenant="other", batch="wrong", custom_id="c")

    assert shown(engine, new) == ("other", "wrong", "c", None, False)
    accept_inbox(engine)
    assert shown(engine, new) == ("acme", "right", None, None, True)


def test_no_name_is_too_long_to_be_inserted_and_255_characters_are_shown(engine: Engine) -> None:
    # Random characters, too long for an index even when compressed.
    endless = "".join(str(uuid.uuid4()) for _ in range(1000))
    new = put(engine, tenant=endless, batch=endless, custom_id=endless, idempotency_key=endless)

    assert shown(engine, new) == (endless[:255],) * 4 + (False,)


def test_the_door_takes_rows_of_every_shape(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO submit_v1 (job) VALUES ('{}'), ('[]')",
            "INSERT INTO submit_v1 (job, batch) VALUES ('{}', 'b'), ('{}', NULL)",
            "INSERT INTO submit_v1 (batch, job) SELECT 'b', '{}'",
        ):
            connection.execute(text(statement))

    assert [row.batch for row in rows(engine, "SELECT batch FROM submit_v1 ORDER BY batch")].count("b") == 2
    assert len({row.id for row in rows(engine, "SELECT id FROM jobs_v1")}) == 5


def test_a_filter_cancels_jobs_that_no_worker_has_read(engine: Engine) -> None:
    unread = [put(engine, job(batch="b"), batch="b") for _ in range(3)]
    other = put(engine, job(batch="c"), batch="c")
    accept_all(engine, entry(job(batch="b")))

    assert counted(engine, "cancel", "batch=b") == 4
    assert give(engine, "cancel", "batch=b") == 4
    assert (counted(engine, "cancel", "batch=b"), give(engine, "cancel", "batch=b")) == (0, 0)

    accept_inbox(engine)
    assert by_status(engine, "batch = 'b'") == {"cancelled": 4}
    assert by_status(engine, f"id = '{other}'") == {"queued": 1}
    with engine.begin() as connection:
        cancel.apply_cancel_requests(connection, keep_s=60.0)
    assert rows(engine, "SELECT id FROM cancel_v1") == []
    numbered = rows(engine, "SELECT id FROM finished_v1 WHERE batch = 'b' AND status = 'cancelled'")
    assert set(unread) <= {str(row.id) for row in numbered}


def test_a_job_whose_text_names_another_id_is_cancelled_by_its_rows(engine: Engine) -> None:
    own = str(uuid.uuid4())
    put(engine, job(id=own, batch="b"), batch="b")

    assert give(engine, "cancel", "batch=b") == 1

    accept_inbox(engine)
    assert by_status(engine, f"id = '{own}'") == {"cancelled": 1}


def test_more_unread_jobs_than_a_transaction_takes_are_all_reached(engine: Engine) -> None:
    number = bulk_update.BATCH + 7
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO submit_v1 (job, batch) VALUES ('{}', 'b')"), [{}] * number)

    assert give(engine, "cancel", "batch=b") == number
    assert one(engine, "SELECT count(*) FROM cancel_v1")[0] == number


@pytest.mark.parametrize(
    ("where", "reached"),
    [
        ("status=queued", 2),
        ("status=failed", 0),
        ("status=queued status=failed tenant=t", 1),
        ("tenant=t batch=b custom_id=c", 1),
        ("tenant=t batch=other", 0),
        ("created_after=2020-01-01T00:00:00Z", 2),
        ("created_before=2020-01-01T00:00:00Z", 0),
        # Unknown while the job is unread.
        ("endpoint=default", 0),
        ("model=m", 0),
        ("priority=5", 0),
        ("deadline_after=2020-01-01T00:00:00Z", 0),
        ("finished_after=2020-01-01T00:00:00Z", 0),
        ("error_code=x", 0),
    ],
)
def test_a_condition_applies_to_the_columns_shown_for_an_unread_job(engine: Engine, where: str, reached: int) -> None:
    put(engine, tenant="t", batch="b", custom_id="c")
    put(engine)

    assert counted(engine, "cancel", where) == reached


def test_only_a_cancellation_reaches_unread_jobs(engine: Engine) -> None:
    put(engine, batch="b")

    assert [counted(engine, order, "batch=b") for order in ("cancel", "replay", "update")] == [1, 0, 0]
    assert give(engine, "update", "batch=b", priority=1) == 0
    with engine.begin() as connection:
        assert count_unread(connection, parse(["batch=b"])) == 1


def test_sql_cancels_a_batch_with_its_unread_jobs(engine: Engine) -> None:
    put(engine, job(batch="b"), batch="b")
    accept_all(engine, entry(job(batch="b")))

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO cancel_v1 (id) SELECT id FROM jobs_v1 WHERE batch = 'b'"))
    accept_inbox(engine)

    assert by_status(engine) == {"cancelled": 2}
