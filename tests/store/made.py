"""Jobs for tests, and the first steps of every store test."""

import json
import uuid
from typing import Any

from sqlalchemy import Engine, text

from worker.core.endpoint import Endpoint
from worker.jobs.core.message import Job, Refusal, read_job
from worker.jobs.store.accept import AcceptResult, Entry, accept
from worker.jobs.store.claim import Claim, claim
from worker.store import leases
from worker.store.transitions import ClaimRequest

ENDPOINTS = {"default": Endpoint("default", "http://127.0.0.1:9/v1/chat/completions")}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def entry(job: dict[str, Any] | None = None, *, id: str | None = None, alias: str | None = None) -> Entry:
    """Return the intake's entry for a job message."""
    text = json.dumps({"request": REQUEST} if job is None else job)
    chosen = id or str(uuid.uuid4())
    read = read_job(text, default_id=chosen, endpoints=ENDPOINTS, max_request_bytes=2**20)
    return Entry("chat.intake", text.encode(), read, alias=alias)


def job(**fields: Any) -> dict[str, Any]:
    return {"request": REQUEST, **fields}


def accept_all(engine: Engine, *entries: Entry, job_ttl_s: float = 3600.0) -> list[AcceptResult]:
    with engine.begin() as connection:
        return accept(connection, entries, job_ttl_s=job_ttl_s)


def worker(engine: Engine, *, lease_s: float = 30.0, slots: int = 10) -> str:
    worker_id = str(uuid.uuid4())
    with engine.begin() as connection:
        leases.register(connection, worker_id, name="test", slots=slots, lease_s=lease_s)
    return worker_id


def claim_one(engine: Engine, worker_id: str, job_id: str) -> Claim | None:
    with engine.begin() as connection:
        return claim(connection, [ClaimRequest(job_id, worker_id)])[0]


def rows(engine: Engine, statement: str, **values: Any) -> list[Any]:
    with engine.begin() as connection:
        return list(connection.execute(text(statement), values))


def one(engine: Engine, statement: str, **values: Any) -> Any:
    (row,) = rows(engine, statement, **values)
    return row


__all__ = ["ENDPOINTS", "REQUEST", "Job", "Refusal", "accept_all", "claim_one", "entry", "job", "one", "rows", "worker"]
