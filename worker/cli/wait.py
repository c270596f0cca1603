"""`afterword wait`: wait for a job's end and print its answer."""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from worker.cli.support import hold_words, output
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.job_client import job_client, plain_job
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option
from worker.cli.support.times import Duration

if TYPE_CHECKING:
    from afterword import Afterword, Job

# Seconds between two looks at the reason of a wait.
LOOK_S = 5.0


@click.command(
    epilog=examples(
        "afterword wait 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword wait 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002 --timeout 10m --json",
    )
)
@click.argument("id")
@click.option(
    "--timeout", "timeout_s", type=Duration(), default=60.0, show_default=True, help="Wait this long: 60, 90s, 10m."
)
@json_option
def wait(id: str, timeout_s: float, as_json: bool) -> None:
    """Wait for a job's end and print its answer.

    While the job waits, standard error gives the reason. Exit code 0: completed; 3: failed, cancelled or expired; 4:
    not ended in time.
    """
    with job_client("database_url") as client:
        print_end(await_job(client, id, timeout_s), as_json=as_json)


def await_job(client: "Afterword", id: str, timeout_s: float) -> "Job":
    """Return the job when it has ended; print each new reason of the wait to standard error."""
    from afterword import WaitTimeout

    until, shown = time.monotonic() + timeout_s, None
    while True:
        left_s = until - time.monotonic()
        try:
            return client.wait(id, max(0.0, min(left_s, LOOK_S)))
        except WaitTimeout as error:
            if left_s <= LOOK_S:
                output.echo(str(WaitTimeout.of(id, error.job, timeout_s)), err=True)
                raise SystemExit(ExitCode.NOT_IN_TIME) from error
            reason = None if error.job is None else hold_words.job(plain_job(error.job) | {"waiting_until": None})
            if reason not in (None, shown):
                output.echo(f"job {id} {reason}", err=True)
                shown = reason


def print_end(job: "Job", *, as_json: bool) -> None:
    """Print the answer of an ended job; end with exit code 3 unless it completed."""
    if as_json:
        output.as_json(plain_job(job))
    elif job.status == "completed":
        text = job.text if job.text is not None else json.dumps(job.response, ensure_ascii=False)
        # A model's answer may hold escapes that control a terminal; a file or a pipe gets it unchanged.
        output.echo(text) if sys.stdout.isatty() else click.echo(text)
    else:
        output.echo(f"job {job.id} {job.status}: {job.error_code}: {job.error_message}", err=True)
    if job.status != "completed":
        raise SystemExit(ExitCode.ENDED_OTHERWISE)
