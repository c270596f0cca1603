"""Attempts of jobs: the steps that start one and the records that close it."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Engine

from tests.store.made import accept_all, claim_one, entry, job
from worker.core.lifecycle import COMPLETE, Move, Outcome
from worker.jobs.store.claim import Claim
from worker.jobs.store.record import AttemptRecord, record
from worker.store import leases

ANSWER = {
    "raw": b'{"id": "x"}', "raw_encoding": "identity", "usage_raw": b"{}", "usage": "{}", "response": '{"id": "x"}',
    "content": "hi", "finish_reason": "stop",
}  # fmt: skip
BARE: dict[str, Any] = {"attempt": {"billed": "no", "usage_requested": False}, "answer": None}


def started(engine: Engine, worker_id: str, **fields: Any) -> Claim:
    (accepted,) = accept_all(engine, entry(job(**fields)))
    assert accepted.job_id
    claimed = claim_one(engine, worker_id, accepted.job_id)
    assert claimed is not None
    return claimed


def attempt_record(claimed: Claim, move: Move | None, outcome: Outcome, **changes: Any) -> AttemptRecord:
    plain = AttemptRecord(
        claimed.job_id, claimed.attempt, claimed.worker_id, move, outcome, sent=True, counts=True,
        attempt={"billed": "yes", "prompt_tokens": 3, "usage_requested": False}, answer=ANSWER,
    )  # fmt: skip
    return replace(plain, **changes)


def write(engine: Engine, *records: AttemptRecord) -> list[bool]:
    with engine.begin() as connection:
        return [one.moved for one in record(connection, records)]


def completed(claimed: Claim) -> AttemptRecord:
    return attempt_record(claimed, COMPLETE, Outcome.completed)


def end_lease(engine: Engine, worker_id: str) -> None:
    with engine.begin() as connection:
        leases.renew(connection, worker_id, slots=1, lease_s=-1.0)
