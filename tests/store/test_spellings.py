"""Every way to submit accepts an id with or without hyphens and in either case, as the same id."""

import json
import uuid

import pytest
from sqlalchemy import Engine, text

from tests.store.made import accept_all, entry, job, rows


def spelled(id: str) -> list[str]:
    return [id, id.upper(), id.replace("-", ""), id.replace("-", "").upper()]


def say(engine: Engine, statement: str, **values: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


@pytest.mark.parametrize("spelling", range(4))
def test_an_unread_job_has_its_id_with_hyphens(engine: Engine, spelling: int) -> None:
    id = str(uuid.uuid4())
    say(engine, "INSERT INTO submit_v1 (id, job) VALUES (:id, :job)", id=spelled(id)[spelling], job=json.dumps({}))
    assert [str(row.id) for row in rows(engine, "SELECT id FROM jobs_v1")] == [id]


@pytest.mark.parametrize("spelling", range(4))
def test_orders_reach_their_job_by_each_spelling(engine: Engine, spelling: int) -> None:
    (made,) = accept_all(engine, entry(job()))
    id = spelled(str(made.job_id))[spelling]
    say(engine, "INSERT INTO cancel_v1 (id) VALUES (:id)", id=id)
    assert [row.status for row in rows(engine, "SELECT status FROM jobs_v1")] == ["cancelled"]
    say(engine, "INSERT INTO replay_v1 (id) VALUES (:id)", id=id)
    assert [row.status for row in rows(engine, "SELECT status FROM jobs_v1")] == ["queued"]
