"""inspect: what running workers answer, from any folder, and the sentence when none does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.pool.workers import until
from worker.cli.inspect import METHODS
from worker.dev.stack import Stack

SCRIPT = Path(sys.executable).parent / "afterword"
HOSTILE = "raise SystemExit('the worker.py of the folder was imported')"
EVERY_METHOD = f"""
import sys
from worker.cli import main
for method in {METHODS!r}:
    main(["inspect", method, "--timeout", "30", "--worker", sys.argv[1], "--json"], standalone_mode=False)
"""
SLOW = {"model": "fake-echo", "messages": [{"role": "user", "content": "x"}], "fake": {"latency_s": 60}}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with files of the names of our packages, and of a module of the standard library."""
    for name in ("worker.py", "celery.py", "afterword.py", "inspect.py"):
        (tmp_path / name).write_text(HOSTILE)
    return tmp_path


def ran(*words: str | Path, folder: Path, settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERWORD_", "PYTHON"))}
    return subprocess.run(words, cwd=folder, env=kept | settings, capture_output=True, text=True, timeout=60)


def test_the_jobs_in_flight_are_listed_beside_a_worker_py(afterword: Command, stack: Stack, hostile: Path) -> None:
    settings = stack.exports()
    job_id = afterword("submit", json.dumps(SLOW), settings=settings).stdout.strip()
    until(lambda: '"in_progress"' in afterword("status", job_id, "--json").output, what="the job runs")

    script = ran(SCRIPT, "inspect", "active", "--timeout", "5s", "--json", folder=hostile, settings=settings)
    node = next(iter(json.loads(script.stdout)))
    text = ran(SCRIPT, "inspect", "active", "--timeout", "30", "--worker", node, folder=hostile, settings=settings)
    afterword("cancel", job_id)

    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.startswith(f"{node}\n")
    assert job_id in text.stdout
    (tasks,) = json.loads(script.stdout).values()
    assert job_id in [task["args"][0] for task in tasks]


def test_every_method_is_answered(stack: Stack, tmp_path: Path) -> None:
    settings = stack.exports()
    ping = ran(SCRIPT, "inspect", "ping", "--timeout", "5", "--json", folder=tmp_path, settings=settings)
    ((node, answer),) = json.loads(ping.stdout).items()
    assert answer == {"ok": "pong"}

    done = ran(sys.executable, "-c", EVERY_METHOD, node, folder=tmp_path, settings=settings)

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(METHODS), done.stderr
    values = {method: answer[node] for method, answer in zip(METHODS, answers, strict=True)}
    assert [method for method, value in values.items() if isinstance(value, dict) and "error" in value] == []
    assert values["registered"] == ["chat.run", "webhook.deliver"]


@pytest.mark.parametrize("method", METHODS)
def test_help_lists_every_method(afterword: Command, method: str) -> None:
    assert method in re.split(r"[,.:]?\s+", afterword("inspect", "--help").stdout)


@pytest.mark.parametrize("method", ["shutdown", "revoke", "rate_limit", "pool_grow"])
def test_only_methods_that_read_are_taken(afterword: Command, method: str) -> None:
    assert afterword("inspect", method).exit_code == 2


def test_no_answer_is_a_sentence(redis_url: str, hostile: Path) -> None:
    done = ran(
        SCRIPT, "inspect", "ping", "--timeout", "0.2", folder=hostile, settings={"AFTERWORD_REDIS_URL": redis_url}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no worker answered within 0.2 s; check with: afterword doctor")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "AFTERWORD_REDIS_URL is not set"),
        ({"AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0"}, "Redis cannot be asked"),
    ],
)
def test_without_redis_it_is_a_sentence(hostile: Path, settings: dict[str, str], sentence: str) -> None:
    done = ran(SCRIPT, "inspect", "ping", folder=hostile, settings=settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
