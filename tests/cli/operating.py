"""The output of commands for a script, and their refusals."""

import json
from typing import Any

from tests.cli.conftest import Command

HOOK = "https://hooks.example.com/in?token=geheim"


def json_of(run: Command, *arguments: str, **options: Any) -> Any:
    """Return a command's JSON output."""
    result = run(*arguments, "--json", **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(run: Command, *arguments: str, code: int = 1, **options: Any) -> str:
    """Return the sentence of a refused command."""
    result = run(*arguments, **options)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return str(result.stderr)
