"""`afterword webhooks recover` and `recoveries`: send the lost deliveries of a time range again."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples, hidden_options, list_by_default
from worker.cli.support.options import json_option, limit_option, tenant_option
from worker.cli.support.times import InstantOption, at
from worker.cli.webhooks.receiver_lookup import receiving, registered, stored_id
from worker.core.lifecycle import DeliveryStatus

if TYPE_CHECKING:
    from sqlalchemy import Connection

STATUSES = ["failed", "cancelled", "held"]
RATES = click.FloatRange(0.01, 1000)
COLUMNS = ["id", "tenant", "receiver", "status", "statuses", "since", "until", "rate_per_s", "redelivered"]


@click.command(
    epilog=examples(
        "afterword webhooks recover billing --since 6h --dry-run",
        "afterword webhooks recover billing --since 2d --until 6h --rate 20",
        "afterword webhooks recover billing --since 30d --status cancelled",
    )
)
@click.argument("name")
@tenant_option
@click.option(
    "--since",
    type=InstantOption(bare=True),
    required=True,
    help="Deliveries created since: RFC 3339, or 6h for six hours ago.",
)
@click.option("--until", type=InstantOption(bare=True, blank=True), help="Deliveries created before; default: now.")
@click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="May repeat; default: failed.")
@click.option("--rate", type=RATES, default=10.0, show_default=True, help="Send at most this many a second.")
@click.option("--dry-run", is_flag=True, help="Only count the deliveries.")
@json_option
def recover(
    name: str,
    tenant: str,
    since: datetime | timedelta,
    until: datetime | timedelta | None,
    statuses: Sequence[str],
    rate: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send failed deliveries of a time range again.

    The workers send them in the background at the given rate, also after a restart. `afterword webhooks recoveries
    list` shows the progress.
    """
    from worker.webhooks.store import receivers
    from worker.webhooks.store import recover as store

    with receiving() as command, command.engine.begin() as connection:
        found = registered(connection, tenant, name)
        now = receivers.present(connection)
        chosen = tuple(DeliveryStatus(status) for status in statuses or ["failed"])
        first, last = at(since, now), now if until is None else at(until, now)
        if first >= last:
            first_text, last_text = output.plain(first), output.plain(last)
            raise click.UsageError(
                f"--since is {first_text}, not before --until, {last_text}; choose an earlier --since"
            )
        wanted = store.Span(found.id, first, last, chosen)
        values: dict[str, Any] = {"recovery": None, "found": store.counted(connection, wanted)}
        if not dry_run:
            if found.status != "enabled":
                raise click.ClickException(f"{name} is disabled; first: afterword webhooks enable {name}")
            values["recovery"] = store.begin(connection, wanted, rate_per_s=rate)
            if values["recovery"] is None:
                raise click.ClickException(f"a recovery of {name} is running; see: afterword webhooks recoveries list")
    if as_json:
        output.as_json(values)
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(values["found"].items())) or "nothing"
    output.echo(f"{counts} found" if dry_run else f"recovery {values['recovery']}: {counts} found, {rate:g} a second")


@click.command(
    "list",
    epilog=examples(
        "afterword webhooks recoveries list",
        "afterword webhooks recoveries list --limit 5 --json",
    ),
)
@limit_option()
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List the newest recoveries and their progress."""
    _list(limit=limit, as_json=as_json)


def _list(*, limit: int, as_json: bool, cancelled: str | None = None) -> None:
    from worker.webhooks.store import recover as store

    with receiving() as command, command.engine.begin() as connection:
        if cancelled is not None:
            _cancel(connection, cancelled)
        found = [output.json_row(row) for row in store.listed(connection, limit=limit)]
    if as_json:
        output.as_json(found)
    else:
        output.echo(output.rows(COLUMNS, found) if found else "no recoveries")


@click.command(epilog=examples("afterword webhooks recoveries cancel 5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6d"))
@click.argument("id", metavar="RECOVERY_ID")
@json_option
def cancel(id: str, as_json: bool) -> None:
    """End a running recovery.

    Deliveries that it has queued stay queued.
    """
    with receiving() as command, command.engine.begin() as connection:
        _cancel(connection, id)
    values = {"recovery": stored_id(id), "status": "cancelled"}
    output.as_json(values) if as_json else output.echo(f"recovery {id} is cancelled")


def _cancel(connection: "Connection", id: str) -> None:
    from worker.webhooks.store import recover as store

    if not store.cancel(connection, stored_id(id)):
        raise click.ClickException(f"no recovery {id} is running; see: afterword webhooks recoveries list")


@click.group(
    invoke_without_command=True,
    params=[click.Option(["--cancel", "cancelled"], metavar="ID", hidden=True), *hidden_options(list_)],
    commands=[list_, cancel],
    epilog=examples(
        "afterword webhooks recoveries list",
        "afterword webhooks recoveries cancel 5d0ab6cd-8fa1-4b2e-9d8e-1c2f3a4b5c6d",
    ),
)
@click.pass_context
def recoveries(context: click.Context, /, cancelled: str | None, **options: Any) -> None:
    """List recoveries, or end a running recovery.

    Without a command: `list`, with its options.
    """
    if cancelled is not None and context.invoked_subcommand is None:
        # The option of earlier releases: end a recovery, then list.
        _list(**options, cancelled=cancelled)
    else:
        list_by_default(context, list_, options)
