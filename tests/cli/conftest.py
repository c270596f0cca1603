"""The command in this process, and one running stack for all tests of this folder."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.store.receiving import MASTER
from worker.cli import main
from worker.dev.stack import Stack, running_stack

Command = Callable[..., Result]


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    with running_stack(Stack()) as stack:
        stack.start_worker()
        yield stack


@pytest.fixture
def afterword(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with exactly these settings; the result has `exit_code`, `stdout`, `stderr`."""

    def run(*arguments: str, settings: dict[str, str] | None = None, typed: str | None = None) -> Result:
        for name, text in (settings or {}).items():
            monkeypatch.setenv(name, text)
        return CliRunner().invoke(main, arguments, input=typed, catch_exceptions=False)

    return run


@pytest.fixture
def run(afterword: Command, database_url: str) -> Command:
    """Run the command on a database of each kind, with a master key."""

    def on_database(*arguments: str, keys: str = MASTER, **options: Any) -> Any:
        settings = {"AFTERWORD_DATABASE_URL": database_url, "AFTERWORD_SECRET_KEYS": keys}
        return afterword(*arguments, settings=settings, **options)

    return on_database
