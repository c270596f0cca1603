"""The command `afterword`: one module a topic; each command says what went wrong in a sentence and an exit code.

Commands import what they need when they run, so that `afterword --help` does not wait for Celery and SQLAlchemy.
"""

import sys
from typing import Any

import click

from worker.core.printable import printable
from worker.settings import BadSettings

# Errors whose text is a sentence for the user, by the module that defines them.
SENTENCES = (
    ("worker.dev.redis", "NoRedis"),
    ("worker.dev.stack", "DidNotStart"),
    ("worker.store.engine", "UnusableDatabase"),
    ("worker.jobs.store.listing", "CannotRead"),
    ("worker.webhooks.vault", "BadMasterKeys"),
    ("worker.webhooks.vault", "CannotOpen"),
)


class Commands(click.Group):
    """A group that turns what a user can mend into a sentence, and leaves a bug its traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except _loaded_errors() as error:
            raise click.ClickException(printable(str(error))) from error
        except click.ClickException as error:
            said = error.format_message()
            if said == printable(said):
                raise
            kind = click.UsageError if isinstance(error, click.UsageError) else click.ClickException
            raise kind(printable(said)) from error


def _loaded_errors() -> tuple[type[Exception], ...]:
    """Return the errors that can have been raised: their modules take 0.4 s to import, and most commands need none."""
    loaded = ((sys.modules.get(module), name) for module, name in SENTENCES)
    return (BadSettings, *(getattr(module, name) for module, name in loaded if module is not None))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="afterword", message="afterword %(version)s")
def main() -> None:
    """Run chat completions in the background: jobs in by queue or SQL, answers and every token out in SQL."""


from worker.cli import (  # noqa: E402  they add their commands to main
    dead_letters,
    deliveries,
    endpoints,
    events,
    installation,
    job_actions,
    jobs,
    receiver_actions,
    receivers,
    secrets,
    start,
    verify,
)

__all__ = [
    "dead_letters",
    "deliveries",
    "endpoints",
    "events",
    "installation",
    "job_actions",
    "jobs",
    "main",
    "receiver_actions",
    "receivers",
    "secrets",
    "start",
    "verify",
]  # fmt: skip
