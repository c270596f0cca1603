"""Cancel and replay from the producer, by URL and through an Engine, and the job afterwards."""

import re
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, text

from afterword import Afterword, NotConfigured
from tests.jobs.store.orders import fail
from tests.producers.made import REQUEST, accept_inbox, claim_one, complete, one, rows, worker


@pytest.fixture(params=["url", "engine"])
def client(request: pytest.FixtureRequest, database_url: str, engine: Engine) -> Afterword:
    return Afterword(database=database_url if request.param == "url" else engine)


def enqueued(client: Afterword, engine: Engine, request: Any = REQUEST, **options: Any) -> str:
    with engine.begin() as connection:
        return client.enqueue(connection, request, **options)


def accepted(client: Afterword, engine: Engine, request: Any = REQUEST, **options: Any) -> str:
    new = enqueued(client, engine, request, **options)
    accept_inbox(engine)
    return new


def test_a_waiting_job_is_cancelled(client: Afterword, engine: Engine) -> None:
    new = accepted(client, engine)

    assert client.cancel(new) == "cancelled"

    job = client.get(new)
    assert job is not None
    assert (job.status, job.error_code, job.done) == ("cancelled", "cancelled", True)


def test_a_running_job_will_be_cancelled_and_an_ended_one_was_too_late(client: Afterword, engine: Engine) -> None:
    running, ended = accepted(client, engine), accepted(client, engine)
    assert claim_one(engine, worker(engine), running) is not None
    complete(engine, ended)

    assert client.cancel(running) == "in_progress"
    assert client.cancel(uuid.UUID(ended)) == "completed"
    asked = one(engine, "SELECT cancel_requested_at FROM afterword_jobs WHERE id = :id", id=running)
    assert asked.cancel_requested_at is not None


@pytest.mark.parametrize("way", ["queue", "inbox"])
def test_an_id_nobody_has_accepted_is_remembered(client: Afterword, engine: Engine, way: str) -> None:
    new = str(uuid.uuid4()) if way == "queue" else enqueued(client, engine)

    assert client.cancel(new.upper()) is None

    if way == "queue":
        enqueued(client, engine, id=new)
    accept_inbox(engine)
    job = client.get(new)
    assert job is not None
    assert (job.status, job.cursor) == ("cancelled", 1)


def test_the_id_of_a_duplicate_cancels_and_replays_the_job_it_became(client: Afterword, engine: Engine) -> None:
    first = accepted(client, engine, idempotency_key="k")
    second = accepted(client, engine, idempotency_key="k")

    assert client.cancel(second) == "cancelled"
    job = client.replay(second)

    assert job is not None
    assert (job.id, job.status) == (first, "queued")


def test_a_failed_job_is_queued_again(client: Afterword, engine: Engine) -> None:
    new = accepted(client, engine)
    fail(engine, new)

    job = client.replay(new)

    assert job is not None
    assert (job.id, job.status, job.error_code, job.attempts) == (new, "queued", None, 3)
    again = client.replay(new)
    assert again is not None
    assert again.status == "queued"
    assert rows(engine, "SELECT generation FROM afterword_jobs") == [(1,)]


def test_what_cannot_be_replayed_says_why(client: Afterword, engine: Engine) -> None:
    running, ended = accepted(client, engine), accepted(client, engine)
    refused = accepted(client, engine, {"model": 7})
    assert claim_one(engine, worker(engine), running) is not None
    complete(engine, ended)

    for job_id, reason in (
        (running, "it is running; cancel it first"),
        (ended, "it is completed; submit the request as a new job"),
        (refused, "it was refused at acceptance (invalid_request); correct it"),
    ):
        with pytest.raises(ValueError, match=f"job {job_id} cannot be replayed: {re.escape(reason)}"):
            client.replay(job_id)


def test_nobody_replays_what_nobody_accepted(client: Afterword, engine: Engine) -> None:
    assert client.replay(uuid.uuid4()) is None
    assert client.replay(enqueued(client, engine)) is None


def test_orders_reach_a_schema_of_its_own(postgresql_url: str) -> None:
    from worker.store import migrate
    from worker.store.engine import open_engine

    engine = open_engine(postgresql_url)
    migrate.downgrade(engine)
    migrate.upgrade(engine, schema="words")
    client = Afterword(database=postgresql_url, schema="words")
    new = str(uuid.uuid4())

    assert client.cancel(new) is None

    with engine.begin() as connection:
        assert str(connection.execute(text("SELECT id FROM words.cancel_v1")).scalar()) == new
    assert client.replay(new) is None
    engine.dispose()


def test_without_a_database_the_remedy_is_said() -> None:
    for call, call_name in ((Afterword().cancel, "cancel"), (Afterword().replay, "replay")):
        with pytest.raises(NotConfigured, match=f"{call_name} needs the database: set AFTERWORD_DATABASE_URL"):
            call(uuid.uuid4())


def test_an_order_makes_no_file_of_a_mistaken_path(tmp_path: Any) -> None:
    import sqlite3

    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Afterword(database=f"sqlite:///{tmp_path}/none.db").cancel(uuid.uuid4())

    assert list(tmp_path.iterdir()) == []
