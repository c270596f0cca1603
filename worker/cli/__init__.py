"""The command `afterword`: one module a topic; each command says what went wrong in a sentence and an exit code.

Commands import what they need when they run, so that `afterword --help` does not wait for Celery and SQLAlchemy.
"""

from typing import Any

import click

from worker.settings import BadSettings


class Commands(click.Group):
    """A group that turns what a user can mend into a sentence, and leaves a bug its traceback."""

    def invoke(self, context: click.Context) -> Any:
        from worker.dev.redis import NoRedis
        from worker.dev.stack import DidNotStart
        from worker.store.engine import UnusableDatabase
        from worker.store.listing import CannotRead
        from worker.vault import BadMasterKeys, CannotOpen

        try:
            return super().invoke(context)
        except (BadSettings, NoRedis, DidNotStart, UnusableDatabase, CannotRead, BadMasterKeys, CannotOpen) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="afterword", message="afterword %(version)s")
def main() -> None:
    """Run chat completions in the background: jobs in by queue or SQL, answers and every token out in SQL."""


from worker.cli import (  # noqa: E402  they add their commands to main
    check,
    endpoints,
    feed,
    letters,
    orders,
    play,
    proof,
    secrets,
    webhook_care,
    webhook_deliveries,
    webhooks,
    work,
)

__all__ = [
    "check", "endpoints", "feed", "letters", "main", "orders", "play", "proof", "secrets", "webhook_care",
    "webhook_deliveries", "webhooks", "work",
]  # fmt: skip
