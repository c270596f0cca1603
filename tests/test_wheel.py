"""The wheel in an empty environment and an empty folder migrates a database and runs a job."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.pool.workers import until
from worker.dev.fake_endpoint import FakeEndpoint

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERWORD_", "PYTHON"))}
    ended = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with only the built wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("afterword-*.whl")
    venv.create(folder / "env", with_pip=True)
    run(folder / "env/bin/python", "-m", "pip", "install", "-q", "--no-warn-conflicts", wheel, cwd=folder)
    return folder / "env" / "bin"


@pytest.mark.timeout(600)
def test_the_installed_wheel_migrates_and_runs_a_job(installed: Path, redis_url: str, tmp_path: Path) -> None:
    with FakeEndpoint() as fake:
        settings = {
            "AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
            "AFTERWORD_REDIS_URL": redis_url,
            "AFTERWORD_ENDPOINT_URL": fake.url,
        }
        afterword = installed / "afterword"
        assert "the database went from nothing to" in run(afterword, "db", "upgrade", cwd=tmp_path, **settings)
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [afterword, "worker"], cwd=tmp_path, env=os.environ | settings, stdout=log, stderr=log
            )
        try:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
            job_id = run(afterword, "submit", body, cwd=tmp_path, **settings).split()[-1]
            until(lambda: worker.poll() is not None or fake.stats()["requests"], what="the request", seconds=60)
            answer = run(afterword, "wait", job_id, cwd=tmp_path, **settings)
        finally:
            worker.terminate()
            worker.wait(60)
    assert "You said: hello" in answer


def test_the_wheel_carries_its_contracts(installed: Path) -> None:
    package = run(installed / "python", "-c", "import worker; print(worker.__path__[0])", cwd=installed).strip()

    for part in ("migrations/env.py", "migrations/versions/0001_jobs.py", "api_contracts/job_message.schema.json"):
        assert (Path(package) / part).is_file(), part
