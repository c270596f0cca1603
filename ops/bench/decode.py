"""Measure the CPU to accept one small message, without SQL: `python ops/bench/decode.py [rounds]`."""

import base64
import json
import sys
import time
import timeit
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from worker.core.endpoint import Endpoint
from worker.jobs.core.message import Job, read_job
from worker.queue.envelope import Envelope, decode

ENDPOINTS = {"default": Endpoint("default", url="http://localhost/v1/chat/completions")}
REQUEST = {
    "model": "DeepSeek-V3.2",
    "messages": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is a queue?"}],
    "temperature": 0.2,
    "max_tokens": 200,
}


def celery_entry(job: dict[str, Any]) -> bytes:
    """Return the queue entry that Python's Celery pushes for a job."""
    task_id = str(uuid.uuid4())
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = base64.b64encode(json.dumps([[job], {}, embed]).encode()).decode()
    headers: dict[str, Any] = {
        "lang": "py", "task": "chat.submit", "id": task_id, "shadow": None, "eta": None, "expires": None, "group": None,
        "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": task_id, "parent_id": None,
        "argsrepr": repr((job,)), "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False,
        "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    properties = {
        "correlation_id": task_id, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0,
        "delivery_info": {"exchange": "", "routing_key": "chat.intake"}, "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }  # fmt: skip
    message = {"body": body, "content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({**message, "headers": headers, "properties": properties}).encode()


def microseconds(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of the best of many short rounds; the others also measure other processes."""
    return min(timeit.repeat(work, number=100, repeat=rounds, timer=time.process_time)) / 100 * 1e6


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    more = {"idempotency_key": "order-1", "priority": 3, "metadata": {"user": "7"}}
    jobs: dict[str, dict[str, Any]] = {
        "request only": {"request": REQUEST},
        "request, key, priority, metadata": {"request": REQUEST, **more},
    }
    for name, job in jobs.items():
        entry = celery_entry(job)
        envelope = decode(entry)
        assert isinstance(envelope, Envelope)
        read = partial(
            read_job, envelope.arguments_text, default_id=envelope.id, endpoints=ENDPOINTS, max_request_bytes=1 << 24
        )
        assert isinstance(read(), Job)
        opened = microseconds(partial(decode, entry), rounds)
        print(f"{name} ({len(entry)} bytes): decode {opened:.1f} µs + read_job {microseconds(read, rounds):.1f} µs")


if __name__ == "__main__":
    main()
