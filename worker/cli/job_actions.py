"""Commands that change jobs: cancel and replay, by id or by filter; jobs update."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from afterword import Afterword
from afterword.orders import why_not
from worker.cli import main, output
from worker.cli.database import writer
from worker.cli.jobs import ENDED_OTHERWISE, client_of, jobs, script
from worker.jobs.core.filter import BadFilter, instant, parse
from worker.settings import load

WHERE = (
    "Jobs that are meant: name=value pairs of status, tenant, batch, custom_id, endpoint, model, error_code, priority, "
    "created_before, created_after, finished_…, deadline_…; a name given twice means either value."
)
where_option = click.option("--where", "where", multiple=True, metavar="FILTER", help=WHERE)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say which jobs it would reach.")
TOLD = {
    None: "no worker has accepted it yet; it is cancelled when one does",
    "cancelled": "cancelled",
    "in_progress": "in_progress; its call is ended within two seconds",
}
WOULD = {
    None: "no worker has accepted it yet; it would be cancelled when one does",
    "cancelled": "would be cancelled",
    "in_progress": "in_progress; its call would be ended within two seconds",
}


@main.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@where_option
@dry_run_option
@script
def cancel(ids: tuple[str, ...], where: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Cancel jobs, by their ids or all that a filter means.

    Exit code 3: for one of the ids it was too late.
    """
    if _by_filter(ids, where):
        _bulk("cancel", where, dry_run=dry_run, as_json=as_json)
        return
    with client_of("database_url") as client:
        stands = {id: _cancelled(client, id, dry_run=dry_run) for id in ids}
    if as_json:
        output.as_json([{"id": id, "status": status, **_dry(dry_run)} for id, status in stands.items()])
    else:
        told = WOULD if dry_run else TOLD
        output.echo("\n".join(f"{id} {told.get(status, f'{status}; too late')}" for id, status in stands.items()))
    if set(stands.values()) - set(TOLD):
        raise SystemExit(ENDED_OTHERWISE)


@main.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@where_option
@dry_run_option
@script
def replay(ids: tuple[str, ...], where: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Queue jobs that failed, expired or were cancelled again, by their ids or all that a filter means.

    Each has new attempts and as much time as it first had, or a day where that was less than a minute. Exit code 3: one
    of the ids cannot be replayed.
    """
    if _by_filter(ids, where):
        _bulk("replay", where, dry_run=dry_run, as_json=as_json)
        return
    with client_of("database_url") as client:
        reasons = {id: _replayed(client, id, dry_run=dry_run) for id in ids}
    if as_json:
        output.as_json(
            [
                {"id": id, "status": "queued" if reason is None else None, "reason": reason, **_dry(dry_run)}
                for id, reason in reasons.items()
            ]
        )
    else:
        for id, reason in reasons.items():
            output.echo(f"{id} {reason or ('would be queued' if dry_run else 'queued')}", err=reason is not None)
    if any(reasons.values()):
        raise SystemExit(ENDED_OTHERWISE)


def _cancelled(client: Afterword, id: str, *, dry_run: bool) -> str | None:
    """Cancel a job, or only look at it; return the status it has, or would have, after that."""
    if not dry_run:
        return client.cancel(id)
    job = client.get(id)
    if job is None or not job.accepted:
        return None
    return "cancelled" if job.status == "queued" else job.status


def _replayed(client: Afterword, id: str, *, dry_run: bool) -> str | None:
    """Replay a job, or only look at it; return why it cannot be done, None where it is or could be."""
    try:
        job = client.get(id) if dry_run else client.replay(id)
    except ValueError as error:
        return str(error)
    if job is None or not job.accepted:
        return "no worker has accepted it yet"
    return why_not(job) if dry_run else None


def _dry(dry_run: bool) -> dict[str, bool]:
    # Said only where it is so: what scripts read today stays as it is.
    return {"dry_run": True} if dry_run else {}


@jobs.command()
@where_option
@click.option("--priority", type=click.IntRange(0, 9), help="0 runs first.")
@click.option("--deadline", help="When the jobs expire, RFC 3339 with an offset.")
@dry_run_option
@script
def update(where: tuple[str, ...], priority: int | None, deadline: str | None, dry_run: bool, as_json: bool) -> None:
    """Change jobs that wait: those queued at that moment, and no other.

    Jobs that no worker has read yet cannot be changed; how many the filter means is said.
    """
    changes: dict[str, Any] = {} if priority is None else {"priority": priority}
    if deadline is not None:
        with usage():
            changes["deadline"] = instant("--deadline", deadline)
    if not changes:
        raise click.UsageError("say what is to change: --priority or --deadline")
    if not where:
        raise click.UsageError("say which jobs are meant: --where")
    _bulk("update", where, changes=changes, dry_run=dry_run, as_json=as_json)


def _by_filter(ids: tuple[str, ...], where: tuple[str, ...]) -> bool:
    if bool(ids) == bool(where):
        raise click.UsageError("give the ids of jobs, or --where, one of the two")
    return bool(where)


def _bulk(
    order: str, where: tuple[str, ...], *, dry_run: bool, as_json: bool, changes: dict[str, Any] | None = None
) -> None:
    from worker.jobs.store.bulk_update import BulkOrder, apply, count, count_unread

    with usage():
        conditions = parse(where)
    with writer(load()) as engine:
        reached = 0 if dry_run else sum(apply(engine, BulkOrder(order), conditions, changes=changes))
        with engine.begin() as connection:
            reached = count(connection, BulkOrder(order), conditions) if dry_run else reached
            unread = count_unread(connection, conditions) if order == BulkOrder.update else 0
    if as_json:
        missed = {"unread": unread} if order == BulkOrder.update else {}
        output.as_json({"order": order, "jobs": reached, "dry_run": dry_run, **missed})
        return
    done = {"cancel": "cancelled", "replay": "queued again", "update": "changed"}[order]
    output.echo(f"{reached} jobs {f'would be {done}' if dry_run else done}")
    if unread:
        output.echo(f"{unread} more are meant, but no worker has read them yet; repeat the command when one has")


@contextmanager
def usage() -> Iterator[None]:
    """Turn a filter that cannot be read into a mistake of the command line."""
    try:
        yield
    except BadFilter as error:
        raise click.UsageError(str(error)) from error
