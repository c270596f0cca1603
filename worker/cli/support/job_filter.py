"""Changes of many jobs at once: the option `--where`, and the run of a bulk cancel, replay or update."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.database import writer
from worker.cli.support.settings import load
from worker.cli.support.times import at

if TYPE_CHECKING:
    from sqlalchemy import Connection

WHERE = (
    "Choose jobs by name=value pairs: status, tenant, batch, custom_id, endpoint, model, error_code, priority, "
    "created_before, created_after, finished_before, finished_after, deadline_before, deadline_after. A time is RFC "
    "3339 or a duration: created_before=6h. Repeat a name to allow either value."
)
where_option = click.option("--where", "where", multiple=True, metavar="FILTER", help=WHERE)
_DONE = {"cancel": "cancelled", "replay": "queued again", "update": "changed"}


def is_by_filter(ids: tuple[str, ...], where: tuple[str, ...]) -> bool:
    """Say whether a command chooses jobs by `--where`; UsageError unless it has either ids or a filter."""
    if bool(ids) == bool(where):
        raise click.UsageError("give either the ids of jobs or --where")
    return bool(where)


def change_jobs(
    action: str, where: tuple[str, ...], *, dry_run: bool, as_json: bool, changes: dict[str, Any] | None = None
) -> None:
    """Cancel, replay or update all jobs of a filter, or count them; print the number."""
    from worker.jobs.core.filter import parse
    from worker.jobs.store.bulk_update import BulkAction, apply, count, count_unread

    with _usage():
        parse(where, now=datetime.now(UTC))  # A mistake is refused before the database opens.
    with writer(load()) as engine:
        with engine.begin() as connection:
            now = _now(connection)
        conditions, changes = parse(where, now=now), _dated(changes, now)
        reached = 0 if dry_run else sum(apply(engine, BulkAction(action), conditions, changes=changes))
        with engine.begin() as connection:
            reached = count(connection, BulkAction(action), conditions) if dry_run else reached
            unread = count_unread(connection, conditions) if action == BulkAction.update else 0
    if as_json:
        missed = {"unread": unread} if action == BulkAction.update else {}
        output.as_json({"order": action, "jobs": reached, "dry_run": dry_run, **missed})
        return
    output.echo(f"{reached} jobs {f'would be {_DONE[action]}' if dry_run else _DONE[action]}")
    if unread:
        output.echo(f"{unread} more match, but no worker has read them yet; repeat the command later")


def _now(connection: "Connection") -> datetime:
    """Return the database's time: `6h` must not depend on the clock of the operator's machine."""
    from worker.webhooks.store.receivers import present

    return present(connection)


def _dated(changes: dict[str, Any] | None, now: datetime) -> dict[str, Any] | None:
    if changes is None:
        return None
    return {name: at(value, now) if isinstance(value, timedelta) else value for name, value in changes.items()}


def dry_run_note(dry_run: bool) -> dict[str, bool]:
    """Return the JSON member of a dry run; a real run prints the same JSON as earlier releases."""
    return {"dry_run": True} if dry_run else {}


@contextmanager
def _usage() -> Iterator[None]:
    from worker.jobs.core.filter import BadFilter

    try:
        yield
    except BadFilter as error:
        raise click.UsageError(str(error)) from error
