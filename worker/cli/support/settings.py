"""The settings of a command, imported when it runs: `worker.settings` costs 20 ms, and `--help` does not need it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import Settings


def load() -> "Settings":
    """Return the settings of this process; BadSettings names every fault."""
    from worker.settings import load as read_environment

    return read_environment()


def need(settings: "Settings", *names: str) -> None:
    """Raise BadSettings unless these settings are set."""
    from worker.settings import need as check

    check(settings, *names)
