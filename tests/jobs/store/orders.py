"""Orders for jobs: cancel and replay by SQL, and changes of many jobs at once."""

import uuid
from typing import Any

from sqlalchemy import Engine, text

from tests.store.made import accept_all, entry, job, rows
from worker.jobs.core.filter import parse
from worker.jobs.store import bulk_update
from worker.jobs.store.bulk_update import BulkAction
from worker.jobs.store.cancel import cancel


def order(engine: Engine, view: str, job_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {view} (id) VALUES (:id)"), {"id": job_id})


def accepted(engine: Engine, **fields: object) -> str:
    new = str(uuid.uuid4())
    accept_all(engine, entry(job(**fields), id=new))
    return new


def fail(engine: Engine, job_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE afterword_jobs SET status = 'failed', error_code = 'bad_request', finished_at = created_at, "
                "attempt = 3, attempts_used = 3 WHERE id = :id"
            ),
            {"id": job_id},
        )


def cancel_one(engine: Engine, job_id: str) -> str | None:
    with engine.begin() as connection:
        return cancel(connection, [job_id])[0]


def give(engine: Engine, order: str, where: str, **changes: Any) -> int:
    return sum(bulk_update.apply(engine, BulkAction(order), parse([where]), changes=changes))


def counted(engine: Engine, order: str, where: str) -> int:
    with engine.begin() as connection:
        return bulk_update.count(connection, BulkAction(order), parse([where]))


def by_status(engine: Engine, where: str = "1 = 1") -> dict[str, int]:
    return {
        row[0]: row[1] for row in rows(engine, f"SELECT status, count(*) FROM jobs_v1 WHERE {where} GROUP BY status")
    }
