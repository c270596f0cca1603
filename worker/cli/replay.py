"""`afterword replay`: queue ended jobs again, by id or by filter."""

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


@click.command(
    epilog=examples(
        "afterword replay 8d7a4c1e-6b0e-4c5f-9a53-0242ac120002",
        "afterword replay --where 'status=failed error_code=total_timeout' --dry-run",
        "afterword replay --where 'status=expired finished_after=2d'",
    )
)
@click.argument("ids", nargs=-1, metavar="ID...")
@where_option
@dry_run_option
@json_option
def replay(ids: tuple[str, ...], where: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Queue failed, expired or cancelled jobs again.

    Choose jobs by their ids or by a filter. Each job gets new attempts and as much time as it first had, or a day if
    that was less than a minute. Exit code 3: at least one of the ids cannot be replayed.
    """
    if is_by_filter(ids, where):
        change_jobs("replay", where, dry_run=dry_run, as_json=as_json)
        return
    with job_client("database_url") as client:
        reasons = {id: _replay(client, id, dry_run=dry_run) for id in ids}
    if as_json:
        output.as_json(
            [
                {"id": id, "status": "queued" if reason is None else None, "reason": reason, **dry_run_note(dry_run)}
                for id, reason in reasons.items()
            ]
        )
    else:
        for id, reason in reasons.items():
            output.echo(f"{id} {reason or ('would be queued' if dry_run else 'queued')}", err=reason is not None)
    if any(reasons.values()):
        raise SystemExit(ExitCode.ENDED_OTHERWISE)


def _replay(client: "Afterword", id: str, *, dry_run: bool) -> str | None:
    """Replay a job unless it is a dry run; return the reason why that is impossible, else None."""
    from afterword.orders import why_not

    try:
        job = client.get(id) if dry_run else client.replay(id)
    except ValueError as error:
        return str(error)
    if job is None or not job.accepted:
        return "no worker has accepted it yet"
    return why_not(job) if dry_run else None
