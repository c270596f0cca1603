"""The client package alone: its wheel, a foreign worker.py beside it, its imports, the caller's Celery and logging."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import redis

from afterword import SubmitError
from tests.producers.made import CLIENT, ROOT, queued
from tests.producers.signed import VECTORS

SMOKE = """
import json, sys, worker
from afterword import Afterword

assert worker.MINE, "the caller's own worker.py was hidden"
with Afterword() as client:
    submitted = client.submit({"model": "m", "messages": [{"role": "user", "content": "hi"}]}, tenant="acme")
    found = client.get(submitted)
loaded = [name for name in sys.modules if name.partition(".")[0] in ("celery", "kombu", "sqlalchemy", "worker")]
print(json.dumps([submitted, found is None, loaded]))
"""
VERIFY = """
import json, os
from afterword import WebhookVerificationError, verify_webhook

vector = json.loads(os.environ["VECTOR"])
headers = {"webhook-id": vector["id"], "webhook-timestamp": str(vector["timestamp"]), "webhook-signature": vector["v1"]}
event = verify_webhook(vector["body"], headers, vector["secret"], now=vector["timestamp"])
try:
    verify_webhook(vector["body"], headers, vector["public_key"], now=vector["timestamp"])
except WebhookVerificationError as error:
    print(json.dumps([event, str(error)]))
"""
NEIGHBOUR = """
import logging
from celery import Celery, current_app
from celery._state import _get_current_app
app = Celery("mine", broker="memory://")
handlers = list(logging.root.handlers)
from afterword import Afterword
with Afterword() as client:
    client.submit({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
assert _get_current_app() is app and current_app.main == "mine"
assert logging.root.handlers == handlers == []
"""


def project(path: Path) -> dict[str, object]:
    found = tomllib.loads(path.read_text())["project"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution's wheel. Built from a copy, because a build leaves files behind."""
    source = tmp_path_factory.mktemp("source") / "python"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("__pycache__", "dist", "build"))
    target = source.parent / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel and the Redis client only."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    interpreter = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # Copied instead of downloaded, because tests use no registry.
    shutil.copytree(Path(redis.__file__).parent, packages / "redis")
    return interpreter


def run(python: Path | str, code: str, folder: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERWORD_", "PYTHON"))}
    command = [str(python), "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_alone_in_a_folder_with_a_foreign_worker_module(
    python: Path, redis_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text("MINE = True\n")

    printed = run(python, SMOKE, tmp_path, AFTERWORD_REDIS_URL=redis_url, AFTERWORD_DATABASE_URL=sqlite_url)

    job_id, unknown, loaded = json.loads(printed)
    ((_, job),) = queued(redis_url)
    assert (job.id, job.tenant, unknown) == (job_id, "acme", True)
    assert loaded == ["worker"]


def test_the_wheel_alone_verifies_a_webhook_and_asks_for_what_a_public_key_needs(python: Path, tmp_path: Path) -> None:
    vector = VECTORS[0]

    event, sentence = json.loads(run(python, VERIFY, tmp_path, VECTOR=json.dumps(vector)))

    assert event == json.loads(vector["body"])
    assert "pip install cryptography" in sentence


def test_the_import_alone_loads_nothing_but_the_standard_library(tmp_path: Path) -> None:
    code = "import sys, json; before = set(sys.modules); import afterword; print(json.dumps(list(sys.modules)))"

    loaded = json.loads(run(sys.executable, code, tmp_path, PYTHONPATH=str(CLIENT)))

    roots = {name.partition(".")[0] for name in loaded}
    assert "afterword" in roots
    assert not roots & {"redis", "celery", "kombu", "sqlalchemy", "psycopg", "cryptography", "worker"}


def test_the_callers_celery_application_and_logging_stay_as_they_are(redis_url: str, tmp_path: Path) -> None:
    run(sys.executable, NEIGHBOUR, tmp_path, PYTHONPATH=str(CLIENT), AFTERWORD_REDIS_URL=redis_url)

    assert len(queued(redis_url)) == 1


def test_both_distributions_have_one_version_and_one_licence() -> None:
    ours, main = project(CLIENT / "pyproject.toml"), project(ROOT / "pyproject.toml")

    assert ours["version"] == main["version"]
    assert ours["license"] == main["license"]
    assert (CLIENT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_wheel_is_typed_and_carries_its_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    version = project(CLIENT / "pyproject.toml")["version"]

    modules = {f"afterword/{path.name}" for path in (CLIENT / "afterword").glob("*.py")}
    assert modules | {"afterword/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {"afterword", f"afterword_client-{version}.dist-info"}


MODULES = sorted((CLIENT / "afterword").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_python_3_9_and_imports_nothing_of_the_worker(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))

    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert "worker" not in {name.partition(".")[0] for name in imported}


def test_an_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(SubmitError("no answer", "7")))
    assert (str(again), again.id) == ("no answer", "7")
