"""The whole product on real parts: Redis, a database, the fake endpoint and workers; each is ended by process id."""

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis
from sqlalchemy import Engine, text

from tests.pool.workers import ROOT, Child, celery_worker, until
from worker.dev.fake_endpoint import FakeEndpoint
from worker.verify.rules import SETTLING
from worker.verify.verify import verify

FINAL = ("completed", "failed", "cancelled", "expired")
SKEWED = Path(__file__).parent / "skewed"
KEY = "sk-flow-secret-0123456789"


def request(words: str = "hello", **more: Any) -> dict[str, Any]:
    """Return a chat-completion body that the fake endpoint echoes."""
    return {"model": "fake-echo", "messages": [{"role": "user", "content": words}], **more}


def skewed(seconds: float) -> dict[str, str]:
    """Return the variables that shift a Python process's clock, see skewed/sitecustomize.py."""
    path = [str(SKEWED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"SKEW_S": str(seconds), "PYTHONPATH": os.pathsep.join(path)}


@dataclass
class System:
    """The parts of one test, with the actions of a producer, a reader and an operator."""

    redis_url: str
    database_url: str
    engine: Engine
    fake: FakeEndpoint
    folder: Path
    workers: list[Child] = field(default_factory=list)
    # Variables of every process that this system starts, beside its settings.
    variables: dict[str, str] = field(default_factory=dict)
    # A test that breaks a rule on purpose sets this to False.
    is_sound: bool = True

    def __post_init__(self) -> None:
        self.redis = Redis.from_url(self.redis_url)
        # Without our package: a client as any team has it.
        self.celery = Celery(broker=self.redis_url, set_as_current=False)

    def environment(self, **settings: Any) -> dict[str, str]:
        ours = {
            "database_url": self.database_url, "redis_url": self.redis_url, "endpoint_url": self.fake.url,
            "endpoint_key": KEY, "log_format": "json", "concurrency": 50, **settings,
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AFTERWORD_")}
        return kept | self.variables | {f"AFTERWORD_{name.upper()}": str(value) for name, value in ours.items()}

    def start(
        self,
        *arguments: str,
        application: str = "worker.app",
        clock_off_s: float = 0.0,
        forked: bool = True,
        release: Path | None = None,
        **settings: Any,
    ) -> Child:
        """Start `celery -A worker.app worker` with a clock `clock_off_s` wrong; return when it has its lease.

        `release`: a folder with another release, unpacked; by default this checkout.
        """
        before = len(self.rows("SELECT 1 FROM afterword_workers"))
        other = (skewed(clock_off_s) if clock_off_s else {}) | ({"PYTHONPATH": str(release)} if release else {})
        child = celery_worker(
            application,
            *arguments,
            log=self.folder / f"worker-{len(self.workers)}.log",
            environment=self.environment(**settings) | other,
            # A variable that changes Python's own start has no effect in a forked process.
            forked=forked and not other and not self.variables,
            folder=release or ROOT,
        )
        self.workers.append(child)
        until(
            lambda: child.ended() or len(self.rows("SELECT 1 FROM afterword_workers")) > before,
            what="the worker's lease",
        )
        assert not child.ended(), child.text()
        return child

    def send(self, body: dict[str, Any] | None = None, **fields: Any) -> str:
        """Submit like any Celery client; return the job's id."""
        job = {"request": request() if body is None else body, **fields}
        return str(self.celery.send_task("chat.submit", args=[job], queue="chat.intake").id)

    def insert(self, body: dict[str, Any], **fields: Any) -> None:
        """Submit like any SQL client."""
        with self.engine.begin() as connection:
            job = json.dumps({"request": body, **fields})
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), {"job": job})

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def job(self, job_id: str) -> Any:
        found = self.rows("SELECT * FROM jobs_v1 WHERE id = :id", id=job_id)
        return found[0] if found else None

    def attempts(self, job_id: str) -> list[Any]:
        return self.rows("SELECT * FROM attempts_v1 WHERE job_id = :id ORDER BY attempt", id=job_id)

    def await_status(self, job_id: str, *statuses: str, seconds: float = 60.0) -> Any:
        """Return the job's row when it has one of these statuses (by default any final status)."""

        def reached() -> Any:
            row = self.job(job_id)
            assert not self.workers or not all(worker.ended() for worker in self.workers), self.said()
            return row if row is not None and row.status in (statuses or FINAL) else None

        return until(reached, what=f"{job_id} {statuses or FINAL}, worker said: {self.said()}", seconds=seconds)

    def await_all(self, job_ids: list[str], *, seconds: float = 60.0) -> dict[str, Any]:
        return {job_id: self.await_status(job_id, seconds=seconds) for job_id in job_ids}

    def assert_sound(self, *, lease_s: float) -> None:
        """Check every rule of `afterword verify` while workers run; their leases last `lease_s` seconds."""
        broken = verify(self.engine, grace_s=lease_s + 2).broken
        assert not broken, broken

    def said(self) -> str:
        return "\n".join(worker.text()[-2000:] for worker in self.workers)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event, of all workers."""
        return [line for line in self.parsed_lines(f'"{event}"') if line["event"] == event]

    def parsed_lines(self, part: str = "") -> list[dict[str, Any]]:
        """Return all workers' log lines that contain `part`."""
        texts = [line for worker in self.workers for line in worker.text().splitlines()]
        return [json.loads(line) for line in texts if line.startswith("{") and part in line]

    def check(self) -> None:
        """Check the rules of `afterword verify` that hold at any moment, even in a database whose workers died."""
        waited_for = {check.__name__ for check in SETTLING}
        broken = [one for one in verify(self.engine, grace_s=0.0).broken if one.name not in waited_for]
        assert broken == []

    def close(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGCONT) if not worker.ended() else None
            worker.kill()
        self.celery.close()
        self.redis.close()
        if self.is_sound:
            self.check()
