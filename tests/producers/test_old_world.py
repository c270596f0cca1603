"""The oldest supported Python and libraries, and Django. A long test, because it downloads them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.producers.made import CLIENT, ROOT, inbox, queued
from worker.store.engine import open_engine

OLD = ["redis==4.2.0", "SQLAlchemy==1.4.54", "Django==4.2.*", "psycopg[binary]==3.1.*", "psycopg2-binary==2.9.*"]


def ids(engine: Engine) -> list[str]:
    return sorted(str(row.id) for row in inbox(engine))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_old_libraries_and_django_go_through_both_doors(
    postgresql_url: str, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    oldest = shutil.which("python3.9") or sys.executable
    subprocess.run([oldest, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", *OLD], check=True)

    done = subprocess.run(
        [str(python), str(ROOT / "tests/producers/old_world.py"), postgresql_url, sqlite_url, redis_url],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CLIENT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    submitted = [made[vendor].pop() for vendor in ("postgresql", "sqlite")]
    assert [job.id for _, job in queued(redis_url)] == submitted
    for vendor, url in (("postgresql", postgresql_url), ("sqlite", sqlite_url)):
        engine = open_engine(url)
        assert ids(engine) == sorted(made[vendor])
        engine.dispose()
