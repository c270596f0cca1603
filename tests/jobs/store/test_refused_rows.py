"""The database refuses one row of the inbox: only that row becomes a dead letter, even with several readers."""

import json

from redis import Redis
from sqlalchemy import Engine, event, text

from tests.jobs.store.intakes import intake
from worker.store.engine import open_engine

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def do(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def rows(engine: Engine, statement: str) -> list[str]:
    with engine.connect() as connection:
        return [str(row[0]) for row in connection.execute(text(statement))]


def fill(engine: Engine) -> None:
    do(engine, "ALTER TABLE afterword_jobs ADD CONSTRAINT no_bad CHECK (custom_id IS DISTINCT FROM 'bad')")
    with engine.begin() as connection:
        for name in ("bad", "good"):
            values = {"job": json.dumps({"request": REQUEST, "custom_id": name})}
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), values)


def test_the_row_that_is_refused_is_buried_and_the_next_is_accepted(postgresql_url: str, redis_url: str) -> None:
    engine = open_engine(postgresql_url)
    fill(engine)
    with Redis.from_url(redis_url) as redis:
        intake(engine, redis, redis_url).drain_inbox()

    assert rows(engine, "SELECT custom_id FROM afterword_jobs") == ["good"]
    assert rows(engine, "SELECT reason FROM afterword_dead_letters") == ["not_accepted"]
    engine.dispose()


def test_a_row_that_another_reader_takes_in_between_costs_no_other_row(postgresql_url: str, redis_url: str) -> None:
    engine, other = open_engine(postgresql_url), open_engine(postgresql_url)
    fill(engine)
    undone = 0

    @event.listens_for(engine, "rollback")
    def take_first_row(_: object) -> None:
        # Rollbacks: the batch, the first try, its check, the second try. At the second check the row is gone.
        nonlocal undone
        undone += 1
        if undone == 5:
            do(other, "DELETE FROM afterword_inbox WHERE job LIKE '%\"bad\"%'")

    with Redis.from_url(redis_url) as redis:
        intake(engine, redis, redis_url).drain_inbox()

    assert rows(engine, "SELECT custom_id FROM afterword_jobs") == ["good"]
    assert rows(engine, "SELECT reason FROM afterword_dead_letters") == []
    assert undone >= 5
    engine.dispose()
    other.dispose()
