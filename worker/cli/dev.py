"""`afterword dev`: run every part on this machine, and print each change of a job."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import hold_words, output
from worker.cli.support.database import database
from worker.cli.support.lazy_commands import examples
from worker.cli.support.settings import load

if TYPE_CHECKING:
    from worker.jobs.store.listing import Listing

LOOK_S = 0.2
NEWEST = 200


@click.command(
    epilog=examples(
        "afterword dev",
        "AFTERWORD_DATA_DIR=./data afterword dev    # keep the database",
        "AFTERWORD_ENDPOINT_URL=https://api-platform.ope.ai afterword dev",
    )
)
def dev() -> None:
    """Run Redis, SQLite, a fake endpoint and a worker.

    It prints the exports for a second terminal and each change of a job. Ctrl-C stops all parts and deletes their
    files. A part that is configured already (AFTERWORD_REDIS_URL, AFTERWORD_DATABASE_URL, AFTERWORD_ENDPOINT_URL) is
    used instead of a new one.
    """
    from worker.dev.stack import Stack, running
    from worker.settings.sources import PREFIX

    settings = load()
    with contextlib.suppress(KeyboardInterrupt), running(Stack(settings, settings.data_dir)) as stack:
        # Ctrl-C must not wait for long answers: a job whose call is cut runs again at the next start.
        stack.start_worker(keep=(PREFIX,), drain_s="2")
        exports = stack.exports()
        output.echo("Afterword runs. In a second terminal:\n")
        output.echo("\n".join(f"  export {name}={shlex.quote(text)}" for name, text in exports.items()))
        output.echo(f"\n  {_command()} submit --model fake-echo --message 'hello' --wait 10")
        output.echo(f"\nThe worker's log: {stack.log}\nJobs, as they change (Ctrl-C stops everything):\n")
        with database(replace(settings, database_url=stack.database_url)) as jobs:
            _follow(jobs, while_=stack.worker_lives)
        raise click.ClickException(f"the worker ended by itself; it said:\n{stack.log_end()}")


def _command() -> str:
    return "afterword" if Path(sys.argv[0]).name == "afterword" else "python -m worker.cli"


def _follow(jobs: "Listing", *, while_: Callable[[], bool]) -> None:
    """Print a line for each change of the newest 200 jobs."""
    known: dict[str, tuple[Any, ...]] = {}
    while while_():
        found = jobs.newest(limit=NEWEST)
        for job in reversed(found):
            state = (job["status"], job["attempts"], job["waiting_for"])
            if known.get(job["id"]) != state:
                output.echo(_line(job))
        known = {job["id"]: (job["status"], job["attempts"], job["waiting_for"]) for job in found}
        time.sleep(LOOK_S)


def _line(job: dict[str, Any]) -> str:
    tokens = f"{job['prompt_tokens']}+{job['completion_tokens']} tokens" if job["prompt_tokens"] is not None else ""
    notes = [job["waiting_for"] and f"waits for {job['waiting_for']}", job["finish_reason"], tokens, job["error_code"]]
    shown = "  ".join(str(note) for note in notes if note)
    attempts = hold_words.attempts(job)
    return f"{job['id']}  {job['status']:11}  attempt {attempts}  {job['model'] or '':16}  {shown}".rstrip()
