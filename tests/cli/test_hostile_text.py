"""Text of tenants, models and strangers reaches an operator's terminal without its escape sequences."""

import json

from sqlalchemy import Engine, text

from tests.cli.conftest import Command
from tests.store.made import accept_all, entry, job

EVIL = "\x1b]0;owned\x07\x9b2J\u202e"
SHOWN = "\\x1b]0;owned\\x07\\x9b2J\\u202e"


def test_no_command_prints_an_escape_of_a_row(run: Command, engine: Engine) -> None:
    (made,) = accept_all(engine, entry(job(tenant=EVIL, batch=EVIL, custom_id=EVIL, metadata={"a": EVIL})))
    with engine.begin() as connection:
        connection.execute(text("UPDATE afterword_jobs SET model = :evil"), {"evil": EVIL})
        connection.execute(
            text(
                "INSERT INTO afterword_dead_letters (queue, job_id, reason, message, entry, created_at) "
                "SELECT 'chat.intake', NULL, 'not_json', :evil, :body, created_at FROM afterword_jobs"
            ),
            {"evil": EVIL, "body": EVIL.encode()},
        )
    for command in ("jobs", f"status {made.job_id}", "dead-letters list", "dead-letters show 1"):
        for script in ((), ("--json",)):
            result = run(*command.split(), *script)
            assert result.exit_code == 0, result.output
            assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*result.output}, command
            if script:
                assert "owned" in str(json.loads(result.stdout))
    assert SHOWN in run("status", str(made.job_id)).stdout


def test_no_sentence_of_an_error_holds_an_escape(run: Command) -> None:
    result = run("status", EVIL)
    assert result.exit_code != 0
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*result.output}
