"""The imports of a command, and its errors as sentences for the user."""

import importlib
import subprocess
import sys

import click
import pytest

from tests.pool.forks import ROOT
from worker.cli import SENTENCES, main
from worker.settings import BadSettings
from worker.webhooks.vault import CannotOpen

LIBRARIES = ("aiohttp", "alembic", "celery", "cryptography", "httpx", "redis", "sqlalchemy")


@pytest.mark.parametrize(("module", "name"), SENTENCES, ids=lambda word: word)
def test_an_error_of_a_loaded_module_is_shown_as_its_sentence(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: type[Exception] = getattr(importlib.import_module(module), name)

    @click.command()
    def broken() -> None:
        if error is CannotOpen:
            raise error("unsealable", "do this instead")
        raise error(("do this instead",)) if error is BadSettings else error("do this instead")

    monkeypatch.setitem(main.commands, "broken", broken)
    with pytest.raises(click.ClickException, match="do this instead"):
        main(["broken"], standalone_mode=False)


def test_a_command_that_uses_no_library_loads_none() -> None:
    program = (
        "import sys; from worker.cli import main; main(['config'], standalone_mode=False); "
        f"sys.exit(' '.join({{name.partition('.')[0] for name in sys.modules}} & set({LIBRARIES!r})))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.stderr.strip() == ""
