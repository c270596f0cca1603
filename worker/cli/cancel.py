"""`afterword cancel`: cancel jobs by id or by filter."""

from typing import TYPE_CHECKING

import click

from worker.cli.support import output
from worker.cli.support.exit_codes import ExitCode
from worker.cli.support.job_client import job_client
from worker.cli.support.job_filter import change_jobs, dry_run_note, is_by_filter, where_option
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import dry_run_option, json_option

if TYPE_CHECKING:
    from afterword import Afterword

CANCELLED = {
    None: "no worker has accepted it yet; it will be cancelled at acceptance",
    "cancelled": "cancelled",
    "in_progress": "in_progress; its call is ended within two seconds",
}
WOULD_BE_CANCELLED = {
    None: "no worker has accepted it yet; it would be cancelled at acceptance",
    "cancelled": "would be cancelled",
    "in_progress": "in_progress; its call would be ended within two seconds",
}


@click.command(
    epilog=examples(
        "afterword cancel 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword cancel --where 'batch=invoices status=queued' --dry-run",
        "afterword cancel --where 'tenant=acme created_before=6h'",
    )
)
@click.argument("ids", nargs=-1, metavar="ID...")
@where_option
@dry_run_option
@json_option
def cancel(ids: tuple[str, ...], where: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Cancel jobs, by their ids or by a filter.

    A running call is stopped; the endpoint may still bill it. Exit code 3: at least one of the ids had ended before.
    """
    if is_by_filter(ids, where):
        change_jobs("cancel", where, dry_run=dry_run, as_json=as_json)
        return
    with job_client("database_url") as client:
        statuses = {id: _cancel(client, id, dry_run=dry_run) for id in ids}
    if as_json:
        output.as_json([{"id": id, "status": status, **dry_run_note(dry_run)} for id, status in statuses.items()])
    else:
        sentences = WOULD_BE_CANCELLED if dry_run else CANCELLED
        lines = (f"{id} {sentences.get(status, f'{status}; too late')}" for id, status in statuses.items())
        output.echo("\n".join(lines))
    if set(statuses.values()) - set(CANCELLED):
        raise SystemExit(ExitCode.ENDED_OTHERWISE)


def _cancel(client: "Afterword", id: str, *, dry_run: bool) -> str | None:
    """Cancel a job unless it is a dry run; return its status after that, None before any worker has accepted it."""
    if not dry_run:
        return client.cancel(id)
    job = client.get(id)
    if job is None or not job.accepted:
        return None
    return "cancelled" if job.status == "queued" else job.status
