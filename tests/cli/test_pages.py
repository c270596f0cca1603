"""README and runbook: the commands in them work, and their links lead to existing files."""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import click
import pytest
from sqlalchemy import Engine

from afterword import Afterword
from worker.cli import main
from worker.dev.stack import Stack

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "ops").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def statements(block: str) -> list[str]:
    return [one.strip() for one in re.sub(r"--.*", "", block).split(";") if one.strip()]


def test_the_quickstart_is_within_the_first_thirty_lines() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:30]
    text = "\n".join(lines)
    assert text.count("```") == 8  # four whole blocks
    for promised in ("ops/demo", "afterword dev", "idempotency_key", "send_task", "INSERT INTO submit_v1", "SELECT"):
        assert promised in text


def test_the_quickstart_in_python_runs_unchanged(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in stack.exports().items():
        monkeypatch.setenv(name, value)
    (code,) = blocks("README.md", "python")
    exec(code, {})
    assert capsys.readouterr().out == "You said: hello\n" * 2


def test_the_quickstart_in_sql_runs_unchanged(stack: Stack) -> None:
    insert, select = statements(blocks("README.md", "sql")[0])
    with closing(sqlite3.connect(stack.database_url.removeprefix("sqlite:///"), timeout=30)) as connection:
        with connection:
            connection.execute(insert)
        newest, *_ = connection.execute(select).fetchall()
    with Afterword(database=stack.database_url) as client:
        assert client.wait(newest[0], 20).text == "You said: hi"


def test_the_runbooks_statements_run_on_both_databases(engine: Engine) -> None:
    for statement in statements("\n".join(blocks("ops/runbook.md", "sql"))):
        if engine.dialect.name == "sqlite" and any(word in statement for word in ("interval", "LATERAL", "jsonb")):
            continue  # the page says that this statement is for PostgreSQL
        with engine.connect() as connection:
            connection.exec_driver_sql(statement).fetchall()


def typed(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("afterword ")]


@pytest.mark.parametrize("words", typed("ops/webhooks.md"), ids=" ".join)
def test_the_commands_of_the_page_on_webhooks_exist_as_they_are_written(words: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="afterword")
    while isinstance(command, click.Group) and words:
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    command.make_context(name, words, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_of_a_pages_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("script", ["ops/install", "ops/demo", "ops/test", ".ci/run"])
def test_a_script_can_be_executed_and_parsed(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)


def install(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run ops/install in a folder, as far as it gets without a package index."""
    (folder / "ops").mkdir(exist_ok=True)
    for name in ("ops/install", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    bare = {name: text for name, text in os.environ.items() if name not in ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")}
    return subprocess.run(
        [folder / "ops/install"], env={**bare, "PIP_NO_INDEX": "1", **environment}, capture_output=True, text=True
    )


def test_the_installation_takes_the_python_that_is_named(tmp_path: Path) -> None:
    said = install(tmp_path, PYTHON=sys.executable).stderr

    assert f"at {sys.executable}: PYTHON names it." in said
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    assert f"version = {wanted}" in (tmp_path / ".venv" / "pyvenv.cfg").read_text()


def test_a_named_python_that_does_not_fit_is_refused_with_a_sentence(tmp_path: Path) -> None:
    done = install(tmp_path, PYTHON="/nowhere/python3")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "PYTHON is /nowhere/python3; name a Python of at least 3.11 that has its venv module, or unset it.\n"
    )
