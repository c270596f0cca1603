"""The jobs of the chaos run, drawn from a seed: their requests and their allowed ends."""

import base64
import json
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos.ledger import Submission

COMPLETED = frozenset({"completed"})
FAILED = frozenset({"failed"})
# So many attempts never run out; only an answer can end these jobs.
MANY = 100
WAYS = ("celery", "submit", "enqueue", "enqueue_many", "sql")
TENANTS = ("a", "b", "c")
Drawn = tuple[dict[str, Any], frozenset[str], float | None]


def body(words: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake-echo", "messages": [{"role": "user", "content": words}], **more}


def _plain(chance: random.Random, words: str) -> Drawn:
    script = {"latency_s": round(chance.uniform(0, 0.4), 3)}
    return {"request": body(words, fake=script), "max_attempts": MANY}, COMPLETED, None


def _stream(chance: random.Random, words: str) -> Drawn:
    script = {"chunk_s": 0.02, "size": chance.choice([40, 400, 2000])}
    return {"request": body(words, stream=True, fake=script), "max_attempts": MANY}, COMPLETED, None


def _long(chance: random.Random, words: str) -> Drawn:
    stream = chance.random() < 0.5
    script = {"stall_after": 1, "stall_s": 4.0} if stream else {"latency_s": 4.0}
    return {"request": body(words, stream=stream, fake=script), "max_attempts": MANY}, COMPLETED, None


def _second_time(chance: random.Random, words: str) -> Drawn:
    first = chance.choice([{"status": 500}, {"no_answer": True}, {"cut_at": 300, "reset": True}, {"status": 429}])
    script = {"attempts": [first, {}]}
    request = body(words, stream=chance.random() < 0.5, fake=script)
    return {"request": request, "max_attempts": MANY}, COMPLETED, None


def _few_attempts(chance: random.Random, words: str) -> Drawn:
    script = {"latency_s": round(chance.uniform(0, 1.0), 3)}
    return {"request": body(words, fake=script), "max_attempts": 2}, COMPLETED | FAILED, None


def _bad(chance: random.Random, words: str) -> Drawn:
    return {"request": {"model": "fake-echo", "messages": words}}, FAILED, None


def _refused(chance: random.Random, words: str) -> Drawn:
    return {"request": body(words, fake={"status": 400}), "max_attempts": MANY}, FAILED, None


def _cancelled(chance: random.Random, words: str) -> Drawn:
    job = {"request": body(words, stream=True, fake={"chunk_s": 0.1, "size": 200, "chunks": 30}), "max_attempts": MANY}
    return job, COMPLETED | {"cancelled"}, chance.uniform(0.0, 1.5)


def _short_deadline(chance: random.Random, words: str) -> Drawn:
    deadline = datetime.now(UTC) + timedelta(seconds=chance.uniform(0.5, 3.0))
    job = {"request": body(words, fake={"latency_s": 0.8}), "deadline": deadline.isoformat(), "max_attempts": MANY}
    return job, COMPLETED | {"expired", "failed"}, None


def _later(chance: random.Random, words: str) -> Drawn:
    start = datetime.now(UTC) + timedelta(seconds=chance.uniform(0.5, 4.0))
    return {"request": body(words), "not_before": start.isoformat(), "max_attempts": MANY}, COMPLETED, None


KINDS: dict[Callable[[random.Random, str], Drawn], int] = {
    _plain: 40, _stream: 25, _long: 4, _second_time: 8, _few_attempts: 4, _bad: 4, _refused: 4, _cancelled: 5,
    _short_deadline: 3, _later: 3,
}  # fmt: skip


def draw(chance: random.Random, way: str) -> list[Submission]:
    """Return a job, sometimes with a twin: another id with the same idempotency key."""
    (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
    job_id = _id(chance)
    job, expects, cancel_after_s = kind(chance, f"job {job_id}")
    job["priority"] = chance.randrange(10)
    job["tenant"] = chance.choice(TENANTS)
    job |= _listeners(chance)
    first = Submission(job_id, way, job, expects, cancel_after_s=cancel_after_s)
    if expects == FAILED or chance.random() > 0.1:
        return [first]
    job["idempotency_key"] = f"key-{job_id}"
    return [first, Submission(_id(chance), chance.choice(WAYS), job, expects, twin_of=job_id)]


def _listeners(chance: random.Random) -> dict[str, Any]:
    """Return a job's webhook fields: the tenant's default receivers, one named receiver, or none."""
    drawn = chance.random()
    if drawn < 0.05:
        return {"webhook": None}
    if drawn < 0.2:
        return {"webhook": {"to": "flaky"}}
    if drawn < 0.45:
        return {"webhook": {"to": "ordered"}, "ordering_key": "k"}
    return {}


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def junk(chance: random.Random) -> bytes:
    """Return an entry for the intake that cannot become a job, different each time."""
    mark = _id(chance)
    envelope = {"headers": {"task": "chat.submit", "id": mark}, "properties": {"body_encoding": "base64"}}
    wrong_task = {"headers": {"task": "os.system", "id": mark}, "properties": {}, "body": _args([{}])}
    no_id = {"headers": {"task": "chat.submit", "id": f"no uuid {mark}"}, "properties": {"body_encoding": "base64"}}
    return chance.choice(
        [
            f"not json {mark}".encode(),
            json.dumps([mark]).encode(),
            b"\xff\xfe\x00" + mark.encode(),
            json.dumps(envelope | {"body": f"@@{mark}"}).encode(),
            json.dumps(envelope | {"body": _args([])}).encode(),
            json.dumps(wrong_task).encode(),
            json.dumps(no_id | {"body": _args([{"request": body("x")}])}).encode(),
            (b"[" * 5000) + mark.encode(),
        ]
    )


def _args(arguments: list[Any]) -> str:
    return base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode()


def stray_nudge(chance: random.Random) -> bytes:
    """Return an entry for the list of nudges that names no job or is malformed."""
    mark = _id(chance)
    return chance.choice([f"{mark}.1".encode(), f"{mark}.x".encode(), b"not json", json.dumps({"a": mark}).encode()])
