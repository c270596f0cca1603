"""The command line shows itself: whole summaries, examples that parse, the same verbs, one table of exit codes."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli import tree
from tests.cli.conftest import Command
from tests.pool.forks import ROOT
from worker.cli import COMMANDS
from worker.cli.support.exit_codes import MEANINGS, ExitCode

NODES = tree.nodes()
GROUPS = [node for node in NODES if isinstance(node.command, click.Group)]
LIBRARIES = ("aiohttp", "alembic", "celery", "cryptography", "httpx", "kombu", "redis", "sqlalchemy")
# Old names of commands, hidden in help, and the commands that they are.
ALIASES = {
    ("webhooks", "change"): ("webhooks", "update"),
    ("webhooks", "attempts"): ("webhooks", "deliveries", "show"),
}
NAMES = (
    "demo", "dev", "worker", "submit", "status", "wait", "cancel", "replay", "jobs", "endpoints", "webhooks",
    "dead-letters", "db", "verify", "doctor", "config", "fake-endpoint", "events", "secrets", "inspect",
)  # fmt: skip


def summary(command: click.Command) -> str:
    return command.get_short_help_str(1000)


@pytest.mark.parametrize("node", GROUPS, ids=str)
def test_no_summary_is_cut_off_at_80_columns(node: tree.Node) -> None:
    text = node.help()
    assert "..." not in text.replace("[ARGS]...", "")
    assert "…" not in text
    assert isinstance(node.command, click.Group)
    for name in node.command.list_commands(node.context):
        command = node.command.get_command(node.context, name)
        if command is not None and not command.hidden:
            assert re.search(rf"^  {name} +{re.escape(summary(command))}$", text, re.M), f"{name} in {text}"


@pytest.mark.parametrize("node", NODES, ids=str)
def test_help_fits_into_80_columns(node: tree.Node) -> None:
    assert [line for line in node.help().splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("node", NODES, ids=str)
def test_every_help_has_an_example_of_its_command(node: tree.Node) -> None:
    lines = tree.examples(node)
    assert lines
    assert all(str(node) in line for line in lines), lines


@pytest.mark.parametrize("line", sorted({line for node in NODES for line in tree.examples(node)}))
def test_an_example_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree.parse(line)


def test_an_example_that_does_not_exist_is_found() -> None:
    for line in ("afterword jobs lsit", "afterword jobs list --stauts failed", "afterword wait ID --timeout soon"):
        with pytest.raises((AssertionError, click.UsageError)):
            tree.parse(line)


@pytest.mark.parametrize("node", [node for node in NODES if node.words], ids=str)
def test_every_option_of_a_command_says_what_it_does(node: tree.Node) -> None:
    for option in node.command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, f"{node} {option.opts}"


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_are_contracts_are_listed(name: str) -> None:
    listed = {name for places in COMMANDS.values() for name in places}
    assert name in listed
    assert not tree.find(name).hidden


@pytest.mark.parametrize("group", ["jobs", "endpoints", "webhooks", "dead-letters", "webhooks deliveries"])
def test_what_can_be_listed_can_be_shown(group: str) -> None:
    assert not tree.find(*group.split(), "list").hidden
    assert not tree.find(*group.split(), "show").hidden


@pytest.mark.parametrize(("alias", "words"), ALIASES.items(), ids=lambda words: " ".join(words))
def test_an_old_name_is_hidden_and_does_the_same(alias: tuple[str, ...], words: tuple[str, ...]) -> None:
    old, new = tree.find(*alias), tree.find(*words)
    assert (old.hidden, new.hidden) == (True, False)
    assert (old.callback, old.params) == (new.callback, new.params)


@pytest.mark.parametrize("group", ["jobs", "webhooks deliveries", "webhooks recoveries"])
def test_a_group_takes_the_options_of_its_list_without_showing_them(group: str) -> None:
    def options(command: click.Command) -> dict[str, Any]:
        return {option.opts[0]: option for option in command.params}

    of_group, of_list = options(tree.find(*group.split())), options(tree.find(*group.split(), "list"))
    assert of_list.keys() <= of_group.keys()
    assert all(option.hidden for option in of_group.values())
    assert not any(option.hidden for option in of_list.values())


def test_options_before_list_reach_it(afterword: Command, sqlite_url: str) -> None:
    settings = {"AFTERWORD_DATABASE_URL": sqlite_url}
    for words in (["jobs"], ["jobs", "--json", "list"], ["jobs", "list", "--json"], ["jobs", "--json"]):
        expected = "[]\n" if "--json" in words else "no jobs\n"
        assert afterword(*words, settings=settings).stdout == expected, words
    assert afterword("jobs", "--status", "gone", "list", settings=settings).exit_code == 2


def test_a_command_lies_in_the_module_of_its_name() -> None:
    for name, place in (item for places in COMMANDS.values() for item in places.items()):
        module, _, attribute = place.partition(":")
        assert attribute == name.replace("-", "_")
        assert module == f"worker.cli.{'jobs' if name == 'status' else attribute}"


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["jobs", "--help"], ["webhooks", "deliveries", "-h"]])
def test_help_and_version_load_no_library(words: list[str]) -> None:
    program = (
        f"import sys; from worker.cli import main; main({words!r}, standalone_mode=False); "
        f"loaded = {{name.partition('.')[0] for name in sys.modules}} & {set(LIBRARIES)!r}; "
        "sys.stderr.write(' '.join(loaded | ({'worker.settings', 'afterword'} & set(sys.modules))))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_page_has_the_table_of_exit_codes() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = page.partition("| exit code | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| {code.value} | {MEANINGS[code]} |" for code in ExitCode]


def test_click_uses_the_codes_of_the_table() -> None:
    assert click.UsageError("").exit_code == ExitCode.USAGE
    assert click.ClickException("").exit_code == ExitCode.FAILED


def test_no_command_has_an_exit_code_of_its_own() -> None:
    for path in (ROOT / "worker" / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("SystemExit", "sys.exit", "exit"):
                assert [ast.unparse(argument).partition(".")[0] for argument in node.args] == ["ExitCode"], path


def test_a_mistyped_command_names_the_nearest(afterword: Command) -> None:
    assert "'endpoints'" in afterword("endpoint").stderr
