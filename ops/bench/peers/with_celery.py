"""The most common way to do the job: a plain Celery task with httpx and SQLAlchemy; pools threads and prefork.

Worker: `celery -A with_celery worker -P threads -c 64`. Jobs: `python with_celery.py submit N`.
"""

import sys
from typing import Any

import httpx
from answers import ENDPOINT_URL, HEADERS, IN_FLIGHT, REDIS_URL, REQUEST, driven_by, new_id, row, table
from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import create_engine

app = Celery("peer", broker=REDIS_URL)
app.conf.update(task_ignore_result=True, worker_send_task_events=False, worker_disable_rate_limits=True)

client = httpx.Client(
    headers=HEADERS,
    timeout=60.0,
    limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT),
)
engine = create_engine(driven_by("psycopg"), pool_size=20, max_overflow=0)


@worker_process_init.connect
def _forget_the_parents_connections(**_: Any) -> None:
    engine.dispose(close=False)


@app.task(name="complete")
def complete(job_id: str, request: dict[str, Any]) -> None:
    response = client.post(ENDPOINT_URL, json=request, headers={"Idempotency-Key": job_id})
    response.raise_for_status()
    with engine.begin() as connection:
        connection.execute(table.insert(), row(job_id, response.json()))


if __name__ == "__main__":
    with app.producer_pool.acquire() as producer:
        for _ in range(int(sys.argv[2])):
            complete.apply_async((new_id(), REQUEST), producer=producer)
