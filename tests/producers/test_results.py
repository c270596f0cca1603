"""get and wait find a job by its id, from the queue or the inbox, in every state."""

import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, make_url

from afterword import Afterword, Job, NotConfigured, WaitTimeout
from tests.producers.made import REQUEST, accept_inbox, accept_queue, complete
from worker.chat.usage import TOKENS


@pytest.fixture(params=["url", "engine"])
def reader(request: pytest.FixtureRequest, redis_url: str, database_url: str, engine: Engine) -> Afterword:
    """A producer that reads by URL, then a producer that reads through an Engine."""
    return Afterword(redis_url, database_url if request.param == "url" else engine)


def enqueued(client: Afterword, engine: Engine, **options: Any) -> str:
    with engine.begin() as connection:
        return client.enqueue(connection, REQUEST, **options)


def found(client: Afterword, id: str) -> Job:
    job = client.get(id)
    assert job is not None
    return job


def test_an_id_nobody_knows_is_none(reader: Afterword) -> None:
    assert reader.get(uuid.uuid4()) is None


def test_a_job_in_the_inbox_is_found_as_queued(reader: Afterword, engine: Engine) -> None:
    job = found(reader, enqueued(reader, engine))

    assert (job.status, job.tenant, job.attempts, job.done, job.text) == ("queued", "default", 0, False, None)
    assert not job.accepted
    accept_inbox(engine)
    assert found(reader, job.id).accepted


def test_an_accepted_job_says_what_was_submitted(reader: Afterword, engine: Engine, redis_url: str) -> None:
    start = datetime(2050, 1, 1, tzinfo=UTC)
    deadline = start + timedelta(hours=1, microseconds=5)
    job_id = reader.submit(REQUEST, priority=1, not_before=start, deadline=deadline, metadata={"order": "7"})
    reader.close()
    accept_queue(redis_url, engine)

    job = found(reader, job_id)

    assert (job.id, job.status, job.tenant, job.model, job.priority) == (job_id, "queued", "default", "m", 1)
    assert (job.not_before, job.deadline, job.waiting_until) == (start, deadline, start)
    assert (job.waiting_for, job.metadata) == ("start", {"order": "7"})
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(minutes=1)


def test_a_completed_job_has_answer_and_usage(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)
    accept_inbox(engine)
    answer = {"choices": [{"message": {"content": "Bonjour \U0001f600"}}], "x": [1, 2.5, None]}
    complete(engine, job_id, answer, prompt_tokens=9, completion_tokens=0)

    job = found(reader, job_id)

    assert (job.status, job.done, job.text, job.finish_reason) == ("completed", True, "Bonjour \U0001f600", "stop")
    assert (job.response, job.usage, job.attempts) == (answer, {"prompt_tokens": 9, "completion_tokens": 0}, 1)
    assert (job.prompt_tokens, job.completion_tokens, job.total_tokens) == (9, 0, None)
    assert job.cursor == 1
    assert job.finished_at is not None


def test_a_refused_job_says_every_fault(reader: Afterword, engine: Engine) -> None:
    with engine.begin() as connection:
        job_id = reader.enqueue(connection, {"model": 7, "messages": []})
    accept_inbox(engine)

    job = found(reader, job_id)

    assert (job.status, job.error_code, job.done) == ("failed", "invalid_request", True)
    assert job.error is not None
    assert {fault["path"] for fault in job.error["faults"]} == {"request.model", "request.messages"}
    assert job.error_message


def test_an_id_that_met_an_earlier_job_leads_to_that_job(reader: Afterword, engine: Engine) -> None:
    first = enqueued(reader, engine, idempotency_key="order-7")
    accept_inbox(engine)
    second = enqueued(reader, engine, idempotency_key="order-7")
    accept_inbox(engine)

    assert found(reader, second).id == first


def test_a_job_sent_again_is_read_from_its_row_and_not_from_the_inbox(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)
    accept_inbox(engine)
    complete(engine, job_id)
    enqueued(reader, engine, id=job_id)

    assert found(reader, job_id).status == "completed"


@pytest.mark.parametrize("wrong", ["order-7", None])
def test_an_id_that_is_no_uuid_is_refused(wrong: Any, reader: Afterword) -> None:
    with pytest.raises(ValueError, match=f"id is {wrong!r}; give a UUID"):
        reader.get(wrong)


def test_the_reported_cost_is_exact(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)
    accept_inbox(engine)
    complete(engine, job_id)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE afterword_attempts SET reported_cost = '0.000000000000000000017'")

    assert found(reader, job_id).reported_cost == Decimal("0.000000000000000000017")


def test_a_job_has_every_column_of_the_view_that_older_databases_have_but_the_request(engine: Engine) -> None:
    with engine.connect() as connection:
        columns = list(connection.exec_driver_sql("SELECT * FROM jobs_v1").keys())

    added_later = {"attempts_used"}
    assert [name for name in columns if name not in {"request", *added_later}] == list(Job.__dataclass_fields__)
    assert set(TOKENS) <= set(columns)


def test_wait_returns_the_job_when_it_has_ended(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)
    accept_inbox(engine)
    later = Timer(0.1, complete, (engine, job_id))
    later.start()

    job = reader.wait(job_id, timeout_s=30)

    assert (job.status, job.text) == ("completed", "Good day.")
    later.join()


def test_wait_looks_at_once_even_with_no_time_left(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)
    accept_inbox(engine)
    complete(engine, job_id)

    assert reader.wait(job_id, timeout_s=0).done


def test_wait_gives_up_with_the_last_state(reader: Afterword, engine: Engine) -> None:
    job_id = enqueued(reader, engine)

    with pytest.raises(WaitTimeout, match=r"is still queued, waiting for: slot after 0\.05 s; it goes on") as raised:
        reader.wait(job_id, timeout_s=0.05)

    assert isinstance(raised.value, TimeoutError)
    assert raised.value.job is not None
    assert raised.value.job.id == job_id


def test_wait_for_a_job_no_worker_has_seen_says_so(reader: Afterword) -> None:
    with pytest.raises(WaitTimeout, match="check that a worker runs on the same Redis and database") as raised:
        reader.wait(uuid.uuid4(), timeout_s=0.05)

    assert raised.value.job is None


def test_the_database_comes_from_the_environment_or_a_file(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job_id = enqueued(Afterword(), engine)
    (tmp_path / "secret").write_text(database_url + "\n")

    monkeypatch.setenv("AFTERWORD_DATABASE_URL_FILE", str(tmp_path / "secret"))
    assert found(Afterword(), job_id).status == "queued"
    monkeypatch.setenv("AFTERWORD_DATABASE_URL", database_url)
    assert found(Afterword(), job_id).status == "queued"


@pytest.mark.parametrize("driver", ["postgres://", "postgresql+psycopg://", "postgresql+asyncpg://"])
def test_a_driver_in_the_url_does_not_matter(driver: str, postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql://", driver)

    assert Afterword(database=url).get(uuid.uuid4()) is None


def test_without_a_database_the_remedy_is_said() -> None:
    for call in (Afterword().get, Afterword().wait):
        with pytest.raises(NotConfigured, match="set AFTERWORD_DATABASE_URL, or give Afterword a database"):
            call(uuid.uuid4())


def test_a_database_of_another_kind_is_refused() -> None:
    with pytest.raises(NotConfigured, match="begins with 'mysql'; give postgresql://"):
        Afterword(database="mysql://localhost/x").get(uuid.uuid4())
    with pytest.raises(TypeError, match="database is of type int; give a URL text or a SQLAlchemy Engine"):
        Afterword(database=7).get(uuid.uuid4())  # type: ignore[arg-type]


def test_reading_makes_no_file_of_a_mistaken_path(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Afterword(database=f"sqlite:///{tmp_path}/none.db").get(uuid.uuid4())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a #%41.db", "ü ?.db", "a%2541+b.db"])
def test_a_sqlite_path_may_hold_any_character_encoded_as_sqlalchemy_reads_it(
    sqlite_url: str, tmp_path: Path, name: str
) -> None:
    odd = tmp_path / name
    Path(sqlite_url.removeprefix("sqlite:///")).rename(odd)
    url = f"sqlite:///{quote(str(odd))}?timeout=3"

    assert make_url(url).database == str(odd)
    assert Afterword(database=url).get(uuid.uuid4()) is None
