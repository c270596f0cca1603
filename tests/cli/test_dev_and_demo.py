"""dev, demo, worker and fake-endpoint as processes: their output, and the files that they leave behind."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Command
from tests.cli.processes import afterword_process, alive, await_output, children


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != "out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_jobs_shows_them_and_leaves_nothing_behind(tmp_path: Path, afterword: Command, number: int) -> None:
    with afterword_process("dev", folder=tmp_path) as dev:
        output = await_output(dev, tmp_path, "Ctrl-C stops everything")
        exports = dict(re.findall(r"export (\w+)=(\S+)", output))
        result = afterword("submit", "--model", "fake-echo", "--message", "hi", "--wait", "30", settings=exports)
        assert result.stdout == "You said: hi\n"
        await_output(dev, tmp_path, "completed    attempt 1  fake-echo")
        started = children(dev.pid)
        dev.send_signal(number)
        dev.wait(timeout=60)
    assert len(started) >= 2  # Redis and the worker
    assert not any(alive(pid) for pid in started)
    assert leftovers(tmp_path) == []
    assert "Traceback" not in (tmp_path / "out").read_text()


def test_dev_says_why_when_its_worker_ends(tmp_path: Path) -> None:
    with afterword_process("dev", folder=tmp_path) as dev:
        await_output(dev, tmp_path, "Ctrl-C stops everything")
        # The lowest id: a child that the worker has just forked still has the worker's command line.
        worker = min(pid for pid in children(dev.pid) if b"worker.cli" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(worker, signal.SIGKILL)
        await_output(dev, tmp_path, "the worker ended by itself")
        assert dev.wait(timeout=30) == 1
    assert leftovers(tmp_path) == []


def test_the_demo_shows_every_way_to_submit_and_ends_well(tmp_path: Path) -> None:
    with afterword_process("demo", folder=tmp_path) as demo:
        code = demo.wait(timeout=90)
    output = (tmp_path / "out").read_text()
    assert code == 0, output
    assert "37 submissions, all as expected" in output
    assert "SELECT custom_id, status, attempts" in output
    assert "36 webhooks were received and their signatures verified" in output
    for case in ("sql alone 3", "429 once 2", "bad request", "fails for good", "three choices, stream"):
        assert f"\n{case} " in output
    assert leftovers(tmp_path) == []


@pytest.mark.long
def test_the_demo_runs_against_an_endpoint_that_is_configured(tmp_path: Path, fake_url: str) -> None:
    settings = {"AFTERWORD_ENDPOINT_URL": fake_url, "AFTERWORD_ENDPOINT_KEY": "sk-test"}
    with afterword_process("demo", "--model", "any", folder=tmp_path, settings=settings) as demo:
        code = demo.wait(timeout=90)
    output = (tmp_path / "out").read_text()
    assert code == 0, output
    assert "4 submissions, all as expected" in output
    assert httpx.get(f"{fake_url}/__stats", trust_env=False).json()["models"] == {"any": 3}


def test_the_demo_fails_when_a_job_does_not_end_as_it_should(tmp_path: Path, fake_url: str) -> None:
    settings = {"AFTERWORD_ENDPOINT_URL": fake_url, "AFTERWORD_ENDPOINT_KEY": "sk-test"}
    with afterword_process("demo", "--model", "fake-400", folder=tmp_path, settings=settings) as demo:
        assert demo.wait(timeout=90) == 1
    assert "NOT AS EXPECTED  plain: status is 'failed', not 'completed'" in (tmp_path / "out").read_text()
    assert leftovers(tmp_path) == []


@pytest.fixture
def fake_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fake")
    with afterword_process("fake-endpoint", "--port", "0", folder=folder) as child:
        yield await_output(child, folder, "export").split()[0]
        child.terminate()
        assert child.wait(timeout=10) == 0


def test_a_taken_port_is_a_sentence(tmp_path: Path, fake_url: str) -> None:
    with afterword_process("fake-endpoint", "--port", fake_url.rpartition(":")[2], folder=tmp_path) as child:
        assert child.wait(timeout=30) == 1
    assert "cannot be opened" in (tmp_path / "out").read_text()


def test_a_worker_without_settings_names_the_missing_ones(tmp_path: Path) -> None:
    with afterword_process("worker", folder=tmp_path) as child:
        assert child.wait(timeout=60) == 1
    output = (tmp_path / "out").read_text()
    assert "AFTERWORD_DATABASE_URL, AFTERWORD_REDIS_URL and AFTERWORD_ENDPOINT_URL are not set" in output
    assert "Traceback" not in output
