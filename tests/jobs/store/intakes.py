"""An intake with a small limit for the length of a request."""

from redis import Redis
from sqlalchemy import Engine

from worker.jobs.intake import Intake
from worker.settings import read

MIB = 1024 * 1024
LONGEST = 1 * MIB


def intake(engine: Engine, redis: Redis, redis_url: str) -> Intake:
    made = read({
        "AFTERWORD_ENDPOINT_URL": "https://one.example", "AFTERWORD_REDIS_URL": redis_url,
        "AFTERWORD_MAX_REQUEST_BYTES": str(LONGEST),
    })  # fmt: skip
    return Intake(engine, redis, made, worker_id=lambda: "w", free_slots=lambda: 1)
