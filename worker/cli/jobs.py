"""`afterword jobs` and `afterword status`: list jobs, show a job, change queued jobs."""

from datetime import datetime, timedelta
from typing import Any

import click

from worker.cli.support import hold_words, output
from worker.cli.support.database import migrated
from worker.cli.support.job_client import job_client, plain_job
from worker.cli.support.job_filter import change_jobs, where_option
from worker.cli.support.lazy_commands import examples, hidden_options, list_by_default
from worker.cli.support.options import dry_run_option, json_option, limit_option
from worker.cli.support.settings import load
from worker.cli.support.times import InstantOption

STATUSES = ["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
COLUMNS = [
    "id", "status", "model", "attempts", "waiting_for", "finish_reason", "prompt_tokens", "completion_tokens",
    "error_code",
]  # fmt: skip
ATTEMPT_COLUMNS = ["attempt", "sent_at", "finished_at", "outcome", "http_status", "error_code", "billed"]


@click.command(
    "list",
    epilog=examples(
        "afterword jobs list",
        "afterword jobs list --status failed --limit 100",
        "afterword jobs list --tenant acme --batch invoices --json",
    ),
)
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs in this status.")
@click.option("--batch", help="Only jobs of this batch.")
@click.option("--tenant", help="Only jobs of this tenant.")
@limit_option()
@json_option
def list_(status: str | None, batch: str | None, tenant: str | None, limit: int, as_json: bool) -> None:
    """List the newest jobs."""
    with migrated(load()) as listing:
        found = listing.newest(limit=limit, status=status, batch=batch, tenant=tenant)
    if as_json:
        output.as_json(found)
    else:
        shown = [job | {"attempts": hold_words.attempts(job)} for job in found]
        output.echo(output.rows(COLUMNS, shown) if found else "no jobs")


def _show(id: str, as_json: bool) -> None:
    with job_client("database_url") as client:
        job = client.get(id)
    if job is None:
        raise click.ClickException(f"no job {id} is known; a worker must have accepted it before it can be seen")
    with migrated(load()) as listing:
        attempts, used = listing.attempts_of(job.id), listing.attempts_used(job.id)
    known = plain_job(job) | {"attempts_used": used}
    if as_json:
        output.as_json(known | {"attempt_rows": attempts})
        return
    output.echo(output.fields(known | {"response": None, "attempts": hold_words.attempts(known)}))
    if (reason := hold_words.job(known)) is not None:
        output.echo(f"\nthe job {reason}")
    if attempts:
        output.echo("\n" + output.rows(ATTEMPT_COLUMNS, attempts))


@click.command(
    epilog=examples(
        "afterword jobs show 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword jobs show 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002 --json",
    )
)
@click.argument("id")
@json_option
def show(id: str, as_json: bool) -> None:
    """Show a job and its attempts.

    The same as `afterword status ID`. ID is the job's UUID.
    """
    _show(id, as_json)


@click.command(
    epilog=examples(
        "afterword status 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword status 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002 --json",
    )
)
@click.argument("id")
@json_option
def status(id: str, as_json: bool) -> None:
    """Show a job and its attempts.

    The same as `afterword jobs show ID`. ID is the job's UUID.
    """
    _show(id, as_json)


@click.command(
    epilog=examples(
        "afterword jobs update --where batch=invoices --priority 0 --dry-run",
        "afterword jobs update --where batch=invoices --priority 0",
        "afterword jobs update --where 'tenant=acme deadline_before=1h' --deadline 6h",
    )
)
@where_option
@click.option("--priority", type=click.IntRange(0, 9), help="The new priority; 0 runs first.")
@click.option(
    "--deadline", type=InstantOption(ahead=True), help="The new deadline: RFC 3339, or 6h for six hours ahead."
)
@dry_run_option
@json_option
def update(
    where: tuple[str, ...],
    priority: int | None,
    deadline: datetime | timedelta | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change the priority or the deadline of queued jobs.

    The command does not change a job that no worker has accepted yet; it prints how many of those match.
    """
    changes: dict[str, Any] = {"priority": priority, "deadline": deadline}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        raise click.UsageError("give a new --priority or --deadline")
    if not where:
        raise click.UsageError("choose the jobs with --where")
    change_jobs("update", where, changes=changes, dry_run=dry_run, as_json=as_json)


@click.group(
    invoke_without_command=True,
    params=hidden_options(list_),
    commands=[list_, show, update],
    epilog=examples(
        "afterword jobs list --status failed",
        "afterword jobs show 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword jobs update --where batch=invoices --priority 0",
    ),
)
@click.pass_context
def jobs(context: click.Context, /, **options: Any) -> None:
    """List jobs, show a job, change queued jobs.

    Without a command: `list`, with its options.
    """
    list_by_default(context, list_, options)
