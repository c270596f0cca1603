"""Every example of the contracts runs through a worker: the endpoint receives its text, and SQL has its row."""

import json
import uuid
from pathlib import Path

from sqlalchemy import text

from tests.contracts.schemas import CONTRACTS, REQUESTS
from tests.flow.system import System
from worker.core.exact_json import members, with_member


def submit(system: System, path: Path) -> str:
    """Insert the example unchanged; add an id if it has none."""
    job = path.read_text()
    if "id" not in members(job):
        job = with_member(job, "id", f'"{uuid.uuid4()}"')
    with system.engine.begin() as connection:
        connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), {"job": job})
    return str(members(job)["id"].value)


def request_text(path: Path) -> str:
    job = path.read_text()
    return job[members(job)["request"].start : members(job)["request"].end]


def test_each_example_is_answered_and_went_out_as_it_is_written(system: System) -> None:
    system.start()

    ids = {path: submit(system, path) for path in REQUESTS}
    rows = system.await_all(list(ids.values()))

    sent = {one["job"]: one["body"] for one in system.fake.requests()}
    for path, job_id in ids.items():
        row = rows[job_id]
        assert (row.status, row.error_code) == ("completed", None), path
        assert sent[job_id] == request_text(path)
        stored = json.loads(row.request) if isinstance(row.request, str) else row.request
        assert stored == json.loads(request_text(path))
        assert row.model == stored["model"]


def test_the_example_of_a_redis_message_becomes_a_job(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    entry = (CONTRACTS / "examples" / "redis_message.json").read_bytes()

    system.redis.lpush("chat.intake", entry)

    row = system.await_status(json.loads(entry)["headers"]["id"])
    assert (row.status, row.model) == ("completed", "DeepSeek-V3.2")
