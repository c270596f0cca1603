"""submit, status, wait, jobs, on a running stack."""

import json
import uuid

import pytest

from tests.cli.conftest import Command
from worker.dev.stack import Stack


@pytest.fixture
def settings(stack: Stack) -> dict[str, str]:
    return stack.exports()


def test_a_submitted_job_can_be_awaited_and_looked_at(afterword: Command, settings: dict[str, str]) -> None:
    submitted = afterword("submit", "--model", "fake-500-once", "--message", "hello", settings=settings)
    job_id = submitted.stdout.strip()
    assert afterword("wait", job_id, "--timeout", "20").stdout == "You said: hello\n"
    shown = afterword("status", job_id).stdout
    assert afterword("jobs", "show", job_id).stdout == shown
    assert "status                      completed" in shown
    assert "server_error" in shown
    job = json.loads(afterword("status", job_id, "--json").stdout)
    assert (job["status"], job["attempts"], job["prompt_tokens"]) == ("completed", 2, 1)
    assert [one["outcome"] for one in job["attempt_rows"]] == ["failed", "completed"]


def test_a_request_is_read_from_standard_input_with_its_options(afterword: Command, settings: dict[str, str]) -> None:
    job_id = str(uuid.uuid4())
    request = {"model": "fake-echo", "messages": [{"role": "user", "content": "hi"}]}
    options = ["--id", job_id, "--batch", job_id, "--tenant", "search", "--stream", "--wait", "20", "--json"]
    result = afterword("submit", "-", *options, typed=json.dumps(request), settings=settings)
    job = json.loads(result.stdout)
    assert (job["id"], job["tenant"], job["batch"], job["content"]) == (job_id, "search", job_id, "You said: hi")
    listed = json.loads(afterword("jobs", "--batch", job_id, "--json").stdout)
    assert [one["id"] for one in listed] == [job_id]
    assert json.loads(afterword("jobs", "list", "--batch", job_id, "--json").stdout) == listed
    assert job_id in afterword("jobs", "--batch", job_id, "--status", "completed", "--tenant", "search").stdout
    assert afterword("jobs", "--batch", job_id, "--status", "failed").stdout == "no jobs\n"


def test_a_failed_job_is_reported_on_standard_error_with_an_exit_code(
    afterword: Command, settings: dict[str, str]
) -> None:
    result = afterword("submit", "--model", "fake-400", "--message", "x", "--wait", "20", settings=settings)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "failed: bad_request" in result.stderr


def test_a_wait_that_is_too_short_has_a_code_of_its_own(afterword: Command, settings: dict[str, str]) -> None:
    result = afterword("submit", "--model", "fake-slow", "--message", "x", "--wait", "0.1", settings=settings)
    assert result.exit_code == 4


def test_an_unknown_job_is_a_sentence(afterword: Command, settings: dict[str, str]) -> None:
    result = afterword("status", str(uuid.uuid4()), settings=settings)
    assert result.exit_code == 1
    assert "is known; a worker must have accepted it" in result.stderr
    assert "give a UUID" in afterword("status", "x").stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give the request as JSON, or --model and --message"),
        (["{}", "--model", "m"], "not both"),
        (["{"], "the request is not JSON"),
        (["[]"], "the request is not a JSON object"),
        (["{}", "--deadline", "soon"], "--deadline is 'soon'; write a time such as 2026"),
    ],
)
def test_an_unclear_command_line_is_refused(
    afterword: Command, settings: dict[str, str], arguments: list[str], reason: str
) -> None:
    result = afterword("submit", *arguments, settings=settings)
    assert result.exit_code == 2
    assert reason in result.stderr
