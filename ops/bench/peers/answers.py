"""Shared by the peers: addresses, the one table, and the row made from an answer."""

import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

REDIS_URL = os.environ["BENCH_REDIS_URL"]
DATABASE_URL = os.environ["BENCH_DATABASE_URL"]  # postgresql://…; each peer adds its driver
ENDPOINT_URL = os.environ["BENCH_ENDPOINT_URL"] + "/v1/chat/completions"
IN_FLIGHT = int(os.environ["BENCH_IN_FLIGHT"])
REQUEST = json.loads(os.environ["BENCH_REQUEST"])
HEADERS = {"Authorization": f"Bearer {os.environ['BENCH_KEY']}"}

table = Table(
    "peer_jobs",
    MetaData(),
    Column("id", String, primary_key=True),
    Column("finished_at", DateTime(timezone=True)),
    Column("finish_reason", String),
    Column("content", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("total_tokens", Integer),
    Column("response", JSONB),
)


def driven_by(driver: str) -> str:
    """Return the database's address for SQLAlchemy with this driver."""
    return DATABASE_URL.replace("postgresql://", f"postgresql+{driver}://", 1)


def row(job_id: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a completed job."""
    choice, usage = answer["choices"][0], answer["usage"]
    return {
        "id": job_id,
        "finished_at": datetime.now(UTC),
        "finish_reason": choice["finish_reason"],
        "content": choice["message"]["content"],
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "response": answer,
    }


def new_id() -> str:
    return str(uuid.uuid4())
