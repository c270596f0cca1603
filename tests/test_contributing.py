"""ops/contributing.md agrees with the tree: its paths, words, commands and settings exist."""

import re
from pathlib import Path

import click
import pytest
import yaml

from tests import fast
from worker.cli import main
from worker.settings import known_names

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ops" / "contributing.md").read_text(encoding="utf-8")
# Code blocks, and code inside a line.
CODE = "\n".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", PAGE, re.DOTALL))
PATHS = sorted(
    set(re.findall(r"(?<![\w/.])(?:worker|tests|ops|api_contracts|migrations)/[\w./-]*\w", CODE))
    | set(re.findall(r"(?<![\w/.-])\.?[\w-]+\.(?:md|toml|yaml)\b", CODE))
)
# The table's rows begin with folders of tests/.
TABLE = PAGE.split("| folder of `tests` |")[1].split("\n\n")[0]
FOLDERS = [f"tests/{name}" for row in TABLE.splitlines() for name in re.findall(r"`([a-z/]+)`", row.split("|")[1])]
CHOSEN = [f"tests/{name}" for name in (*fast.FOLDERS, *fast.FLAT_FOLDERS, *fast.FILES, *fast.SLOW)]
WORDS = re.findall(r"^\| \*\*([\w ]+)\*\* \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS + FOLDERS)
def test_a_path_on_the_page_exists(path: str) -> None:
    assert (ROOT / path).exists(), f"ops/contributing.md names {path}, which does not exist"


@pytest.mark.parametrize("path", CHOSEN)
def test_what_the_fast_form_of_the_tests_chooses_exists(path: str) -> None:
    assert (ROOT / path).exists(), f"tests/fast.py names {path}, which does not exist"


def test_every_folder_of_tests_is_in_the_table() -> None:
    folders = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")} - {"tests"}
    wings = {"tests/jobs", "tests/webhooks"}
    assert folders - wings <= set(FOLDERS), sorted(folders - wings - set(FOLDERS))


def test_every_word_of_the_glossary_is_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8").lower() for path in (ROOT / "worker").rglob("*.py"))
    assert len(WORDS) >= 20
    assert [word for word in WORDS if not re.search(rf"\b{word.replace(' ', '[ _]')}s?\b", code)] == []
    assert sorted(WORDS) == WORDS, "the glossary is in the order of the alphabet"


def test_every_command_and_setting_on_the_page_exists() -> None:
    context = click.Context(main)
    for line in re.findall(r"\bafterword ((?:[a-z-]+ ?)+)", CODE):
        command: click.Command = main
        for name in line.split():
            found = command.get_command(context, name) if isinstance(command, click.Group) else None
            if found is None:
                assert command is not main, f"afterword {line}"
                break
            command = found
    settings = set(re.findall(r"AFTERWORD_[A-Z_]+", CODE))
    assert settings <= set(known_names()), sorted(settings - set(known_names()))


def test_pre_commit_runs_the_linters_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert [hook["entry"].split()[:2] for hook in hooks] == [
        [".venv/bin/ruff", "check"],
        [".venv/bin/ruff", "format"],
        [".venv/bin/mypy"],
    ]
