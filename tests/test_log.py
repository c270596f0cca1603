"""The form of a log line, and the data that must never appear in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from worker.log import configure
from worker.settings import Settings, read

KEY = 'sk"geheim\\1'
HOSTILE = "\x1b]0;a\x07\x9b2J\u202e\r"
ENVIRON = {
    "AFTERWORD_ENDPOINT_URL": "https://a.example",
    "AFTERWORD_ENDPOINT_KEY": KEY,
    "AFTERWORD_DATABASE_URL": "postgresql://u:p%40ssword@h/d",
    "AFTERWORD_LOG_FORMAT": "json",
}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure(read(ENVIRON), stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def last(stream: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


def test_a_json_line_carries_the_event_the_time_and_the_bound_values(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(job_id="j1", attempt=2)
    structlog.get_logger("worker.run").info("attempt.completed", http_status=200, prompt_tokens=3)
    line = last(lines)
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "attempt.completed",
        "level": "info",
        "logger": "worker.run",
        "job_id": "j1",
        "attempt": 2,
        "http_status": 200,
        "prompt_tokens": 3,
    }


def test_celerys_own_lines_come_in_the_same_form(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(job_id="j1")
    logging.getLogger("celery.worker").warning("Hard time limit (%ss) exceeded", 3)
    assert last(lines)["event"] == "Hard time limit (3s) exceeded"
    assert last(lines)["job_id"] == "j1"


@pytest.mark.parametrize(
    "text",
    [
        f"key {KEY} was refused",
        "Authorization: Bearer abcdefgh12345",
        "using sk-proj-abcdefgh12345",
        "connect to postgresql+psycopg://u:p%40ssword@h/d failed",
        "password p@ssword is wrong",
        "redis://:abcdefgh12345@h:6379/0",
    ],
)
def test_no_secret_reaches_a_line_from_any_logger(lines: io.StringIO, text: str) -> None:
    logging.getLogger("foreign").error(text)
    structlog.get_logger().error("attempt.failed", detail={"deep": [text]})
    for line in lines.getvalue().splitlines():
        json.loads(line)
        assert "[redacted]" in line
    for secret in ("geheim", "abcdefgh12345", "p%40ssword", "p@ssword"):
        assert secret not in lines.getvalue()


def test_no_secret_reaches_a_line_by_a_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"cannot use {KEY}")
    except ValueError:
        structlog.get_logger().exception("task.failed")
    assert "ValueError: cannot use [redacted]" in last(lines)["exception"]


def test_a_field_with_a_secrets_name_is_hidden_and_token_counts_are_not(lines: io.StringIO) -> None:
    structlog.get_logger().info("x", authorization="anything", cookie="c", prompt_tokens=7)
    assert (last(lines)["authorization"], last(lines)["cookie"]) == ("[redacted]", "[redacted]")
    assert last(lines)["prompt_tokens"] == 7


def test_the_http_libraries_do_not_log_addresses(lines: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: POST https://a.example/v1")
    assert lines.getvalue() == ""


def test_a_level_below_the_setting_is_not_logged(lines: io.StringIO) -> None:
    structlog.get_logger().debug("x")
    logging.getLogger("y").debug("x")
    assert lines.getvalue() == ""


def test_the_console_form_is_for_people() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure(Settings(log_format="console"), stream=stream)
    structlog.get_logger().info("job.completed", job_id="j1")
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    assert "job.completed" in stream.getvalue()
    assert "job_id=j1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_no_terminal_escape_reaches_a_console(lines: io.StringIO) -> None:
    stream = io.StringIO()
    configure(read({**ENVIRON, "AFTERWORD_LOG_FORMAT": "console"}), stream=stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        structlog.get_logger().exception("attempt.failed", model=HOSTILE, detail={HOSTILE: [HOSTILE]})
    logging.getLogger("foreign").error("%s", HOSTILE)

    shown = stream.getvalue()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & {*shown}
    assert shown.count("x1b]0;a") == 5
