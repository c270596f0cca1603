"""Runs the peers (ops/bench/peers) in their own environment, with the parts of the same run."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from drain import Drained, drain
from parts import KEY, ROOT, Parts, request, scalar
from sqlalchemy import text

from worker.store.engine import open_engine

FOLDER = ROOT / "ops" / "bench" / "peers"
CREATE = """CREATE TABLE peer_jobs (
    id text PRIMARY KEY, finished_at timestamptz, finish_reason text, content text,
    prompt_tokens integer, completion_tokens integer, total_tokens integer, response jsonb
)"""


@dataclass(frozen=True, slots=True)
class Peer:
    """`worker`: its command, in the environment's bin folder. `module`: the script that submits the jobs."""

    name: str
    module: str
    in_flight: int
    worker: tuple[str, ...]


def _celery(pool: str, slots: int) -> Peer:
    flags = ("-P", pool, "-c", str(slots), "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
    return Peer(f"Celery {pool}, {slots}", "with_celery", slots, ("celery", "-A", "with_celery", "worker", *flags))


def _taskiq(slots: int) -> Peer:
    flags = ("--workers", "1", "--max-async-tasks", str(slots), "--log-level", "ERROR")
    return Peer(f"taskiq, {slots}", "with_taskiq", slots, ("taskiq", "worker", "with_taskiq:broker", *flags))


PEERS = (
    _celery("threads", 64),
    _celery("threads", 200),
    _celery("prefork", 8),
    Peer("arq, 200", "with_arq", 200, ("arq", "with_arq.Worker")),
    _taskiq(200),
)


def run(parts: Parts, peer: Peer, venv: Path, *, jobs: int) -> Drained:
    """Drain `jobs` jobs with a peer, into a new table `peer_jobs`."""
    with parts.database("postgresql") as (url, engine):
        with open_engine(url).begin() as connection:
            connection.execute(text(CREATE))
        environment = {
            "PATH": f"{venv / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(FOLDER),
            "BENCH_REDIS_URL": parts.redis_server.url,
            "BENCH_DATABASE_URL": url, "BENCH_ENDPOINT_URL": parts.endpoint_url, "BENCH_KEY": KEY,
            "BENCH_IN_FLIGHT": str(peer.in_flight), "BENCH_REQUEST": json.dumps(request()),
        }  # fmt: skip
        program, *flags = peer.worker
        worker = parts.child([str(venv / "bin" / program), *flags], environment)

        def submit(n: int) -> None:
            command = [str(venv / "bin" / "python"), str(FOLDER / f"{peer.module}.py"), "submit", str(n)]
            subprocess.run(command, env=environment, check=True)

        try:
            return drain(
                peer.name, worker, submit, lambda: int(scalar(engine, "SELECT count(*) FROM peer_jobs")), jobs=jobs
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the worker said:\n{worker.said()}") from error
        finally:
            worker.end()
            parts.redis.flushall()
