"""`afterword webhooks disable` and `enable`: hold a receiver's deliveries, and send them again."""

from datetime import datetime, timedelta
from typing import Any

import click

from worker.cli.support import output
from worker.cli.support.lazy_commands import examples
from worker.cli.support.options import json_option, tenant_option
from worker.cli.support.times import InstantOption, at
from worker.cli.webhooks.receiver_lookup import ReceiverCommand, batches, receiving, registered
from worker.core.lifecycle import DeliveryStatus


class Resume(InstantOption):
    """`all`, `none`, or an instant: held deliveries since then are sent."""

    name = "all|none|time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return `all` and `none` unchanged, else the instant."""
        return value if value in ("all", "none") else super().convert(value, param, ctx)


@click.command(
    epilog=examples(
        "afterword webhooks disable billing",
        "afterword webhooks disable billing --reason 'moved until Monday'",
    )
)
@click.argument("name")
@tenant_option
@click.option("--reason", help="Shown with each of its deliveries; default: operator.")
@json_option
def disable(name: str, tenant: str, reason: str | None, as_json: bool) -> None:
    """Stop sending to a receiver.

    Its deliveries are kept on hold for 30 days; `enable` sends them.
    """
    from worker.webhooks.store import receivers

    why = reason or receivers.BY_OPERATOR
    with receiving() as command, command.engine.begin() as connection:
        found = registered(connection, tenant, name)
        if not receivers.disable(connection, found.id, why):
            raise click.ClickException(f"{name} is disabled already ({found.disabled_reason})")
    values = {"tenant": tenant, "name": name, "status": "disabled", "disabled_reason": why}
    output.as_json(values) if as_json else output.echo(f"{name} is disabled; its deliveries are kept on hold")


@click.command(
    epilog=examples(
        "afterword webhooks enable billing",
        "afterword webhooks enable billing --resume 6h",
        "afterword webhooks enable billing --resume none",
    )
)
@click.argument("name")
@tenant_option
@click.option(
    "--resume",
    type=Resume(bare=True),
    default="all",
    show_default=True,
    help="Held deliveries to send: all, none, or those since a time (RFC 3339, or 6h for six hours ago).",
)
@json_option
def enable(name: str, tenant: str, resume: str | datetime | timedelta, as_json: bool) -> None:
    """Send to a receiver again, with the deliveries on hold.

    The receiver's health starts from zero. Deliveries that are not resumed are cancelled; `afterword webhooks recover
    NAME --status cancelled` sends them later.
    """
    from worker.webhooks.store import receivers, redeliver

    with receiving() as command:
        with command.engine.begin() as connection:
            found = registered(connection, tenant, name)
            since = _since(resume, receivers.present(connection))
            receivers.enable(connection, found.id)
        # In several transactions: there may be a million deliveries, and workers must write between them.
        cancelled = 0
        if since is not None:
            held = [DeliveryStatus.held]
            cancelled = batches(
                command, lambda connection: redeliver.drop(connection, found.id, statuses=held, before=since)
            )
        queued = batches(command, lambda connection: redeliver.resume(connection, found.id, since=since))
        _advance(command, found.id)
    values = {"tenant": tenant, "name": name, "status": "enabled", "queued": queued, "cancelled": cancelled}
    line = f"{name} is enabled; queued again: {queued}, cancelled: {cancelled}"
    output.as_json(values) if as_json else output.echo(line)


def _since(resume: str | datetime | timedelta, now: datetime) -> datetime | None:
    """Return an instant: held deliveries since then are sent; None: all."""
    if isinstance(resume, str):
        return None if resume == "all" else now
    return at(resume, now)


def _advance(command: ReceiverCommand, receiver_id: str) -> None:
    from worker.webhooks.store import redeliver

    after: str | None = ""
    while after is not None:
        with command.engine.begin() as connection:
            after = redeliver.advance_all(connection, receiver_id, after=after)
