"""The producer package as a command uses it: the same client as any producer, with sentences for its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.database import migrated
from worker.cli.support.settings import load, need

if TYPE_CHECKING:
    from afterword import Afterword, Job


@contextmanager
def job_client(*needed: str) -> "Iterator[Afterword]":
    """Give a client; `needed` names the settings that must be set, such as `database_url`."""
    from afterword import Afterword, NotConfigured, SubmitError

    settings = load()
    need(settings, *needed)
    if "database_url" in needed:
        # The package passes on the words of the driver; here a database without our tables gets a remedy.
        with migrated(settings):
            pass
    with Afterword(settings.redis_url, settings.database_url, schema=settings.database_schema) as client:
        try:
            yield client
        except (NotConfigured, SubmitError, ValueError, TypeError) as error:
            raise click.ClickException(str(error)) from error


def plain_job(job: "Job") -> dict[str, Any]:
    """Return a job by field as JSON has it."""
    return {name: output.plain(value) if isinstance(value, datetime) else value for name, value in asdict(job).items()}
